import json

import pytest
from calculator import Calculator


def plain(value):
    """The value as JSON has it, where no object of the answer can compare itself."""
    return json.loads(json.dumps(value))


def test_it_adds():
    assert plain(Calculator().add(2, 3)) == 5
    assert plain(Calculator().add(-2, 0.5)) == -1.5


def test_it_subtracts():
    assert plain(Calculator().subtract(2, 3)) == -1
    assert plain(Calculator().subtract(0.5, -0.25)) == 0.75


def test_it_multiplies():
    assert plain(Calculator().multiply(4, -3)) == -12
    assert plain(Calculator().multiply(4, 0)) == 0


def test_it_divides():
    assert plain(Calculator().divide(7, 2)) == 3.5
    assert plain(Calculator().divide(-7, 2)) == -3.5
    assert plain(Calculator().divide(0, 4)) == 0


def test_division_by_zero_is_refused():
    for zero in (0, 0.0, -0.0):
        with pytest.raises(ZeroDivisionError) as caught:
            Calculator().divide(1, zero)
        assert str(caught.value) == "Cannot divide by zero"


def test_the_history_lists_operations():
    calculator = Calculator()
    assert plain(calculator.history()) == []
    calculator.add(1, 2)
    calculator.subtract(1, 2)
    calculator.multiply(3, 2)
    calculator.divide(3, 2)
    assert all(type(entry) is tuple for entry in calculator.history())
    assert plain(calculator.history()) == [
        ["add", 1, 2, 3],
        ["subtract", 1, 2, -1],
        ["multiply", 3, 2, 6],
        ["divide", 3, 2, 1.5],
    ]


def test_a_failed_division_is_not_in_the_history():
    calculator = Calculator()
    calculator.add(1, 2)
    with pytest.raises(ZeroDivisionError):
        calculator.divide(1, 0)
    assert plain(calculator.history()) == [["add", 1, 2, 3]]


def test_the_history_is_a_copy():
    calculator = Calculator()
    calculator.add(1, 2)
    calculator.history().clear()
    assert plain(calculator.history()) == [["add", 1, 2, 3]]


def test_calculators_share_nothing():
    one, other = Calculator(), Calculator()
    one.add(1, 2)
    assert len(one.history()) == 1
    assert plain(other.history()) == []
    assert plain(Calculator().history()) == []


def test_clear_empties_the_history():
    calculator = Calculator()
    calculator.add(1, 2)
    calculator.clear()
    assert plain(calculator.history()) == []
    calculator.add(2, 2)
    assert plain(calculator.history()) == [["add", 2, 2, 4]]
