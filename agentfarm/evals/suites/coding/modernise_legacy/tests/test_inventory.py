import dataclasses
import importlib
import json
import sys
import warnings

import pytest

TEXT = "# stock\n\nPen; 12 ;150\n  Ink;3;1999\nPapper åäö ;0;5\n"
DICTS = [
    {"name": "Pen", "qty": 12, "price": 150},
    {"name": "Ink", "qty": 3, "price": 1999},
    {"name": "Papper åäö", "qty": 0, "price": 5},
]
ITEMS = [("Pen", 12, 150), ("Ink", 3, 1999), ("Papper åäö", 0, 5)]
LINES = "Pen;12;150\nInk;3;1999\nPapper åäö;0;5\n"


def plain(value):
    return json.loads(json.dumps(value))


def new():
    """The new module, loaded when a check begins: without it the others can pass."""
    return importlib.import_module("inventory")


def old():
    return importlib.import_module("legacy_inventory")


def items():
    return [new().Item(*fields) for fields in ITEMS]


def fields_of(found):
    return [plain([item.name, item.quantity, item.price]) for item in found]


def quietly(function, *arguments):
    """Call a function of the old module, its warning unseen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def test_an_item_is_a_frozen_dataclass():
    item = new().Item("Pen", 12, 150)
    assert [field.name for field in dataclasses.fields(item)] == [
        "name",
        "quantity",
        "price",
    ]
    assert item == new().Item(name="Pen", quantity=12, price=150)
    assert item != new().Item("Pen", 13, 150)
    with pytest.raises(dataclasses.FrozenInstanceError):
        item.quantity = 1


def test_new_names_read(tmp_path):
    path = tmp_path / "stock.txt"
    path.write_text(TEXT, encoding="utf-8")
    for place in (path, str(path)):
        found = new().read_inventory(place)
        assert type(found) is list
        assert all(type(item) is new().Item for item in found)
        assert fields_of(found) == plain(ITEMS)
    assert plain(new().read_inventory(tmp_path / "none.txt")) == []
    path.write_text("Pen;12\n", encoding="utf-8")
    with pytest.raises(ValueError):
        new().read_inventory(path)


def test_new_names_compute():
    assert plain(new().total_value(items())) == 12 * 150 + 3 * 1999
    assert plain(new().total_value([])) == 0
    assert plain(new().items_below(items(), 12)) == ["Ink", "Papper åäö"]
    assert plain(new().items_below(items(), 0)) == []
    assert plain(new().total_value(item for item in items())) == 7797
    assert plain(new().items_below((item for item in items()), 1)) == ["Papper åäö"]


def test_new_names_write(tmp_path):
    path = tmp_path / "stock.txt"
    assert plain(new().write_inventory(items(), path)) == 3
    assert path.read_text(encoding="utf-8") == LINES
    assert plain(new().write_inventory((item for item in items()[:1]), str(path))) == 1
    assert path.read_text(encoding="utf-8") == "Pen;12;150\n"


def test_new_names_do_not_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new().write_inventory(items(), tmp_path / "stock.txt")
        found = new().read_inventory(tmp_path / "stock.txt")
        assert plain(new().total_value(found)) == 7797
        assert plain(new().items_below(found, 1)) == ["Papper åäö"]


def test_old_names_give_the_same_results(tmp_path):
    path = tmp_path / "stock.txt"
    path.write_text(TEXT, encoding="utf-8")
    assert plain(quietly(old().readInventory, str(path))) == DICTS
    assert plain(quietly(old().readInventory, str(tmp_path / "none.txt"))) == []
    assert plain(quietly(old().totalValue, DICTS)) == 7797
    assert plain(quietly(old().itemsBelow, DICTS, 12)) == ["Ink", "Papper åäö"]
    assert plain(quietly(old().writeInventory, DICTS, str(path))) == 3
    assert path.read_text(encoding="utf-8") == LINES
    path.write_text("Pen;12\n", encoding="utf-8")
    with pytest.raises(ValueError):
        quietly(old().readInventory, str(path))


def calls(folder):
    """Each old function with arguments, and the new name to be told."""
    path = str(folder / "stock.txt")
    yield "inventory.write_inventory", old().writeInventory, (DICTS, path)
    yield "inventory.read_inventory", old().readInventory, (path,)
    yield "inventory.total_value", old().totalValue, (DICTS,)
    yield "inventory.items_below", old().itemsBelow, (DICTS, 1)


def test_old_names_warn_once_and_name_the_new_one(tmp_path):
    for name, function, arguments in calls(tmp_path):
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function(*arguments)
            assert [warning.category for warning in caught] == [DeprecationWarning]
            assert name in str(caught[0].message)


def test_warnings_point_at_the_caller(tmp_path):
    for name, function, arguments in calls(tmp_path):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function(*arguments)
        assert [warning.filename for warning in caught] == [__file__], name


def test_importing_the_old_module_does_not_warn():
    sys.modules.pop("legacy_inventory", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = old()
    for name in ("readInventory", "totalValue", "itemsBelow", "writeInventory"):
        assert callable(getattr(module, name))
