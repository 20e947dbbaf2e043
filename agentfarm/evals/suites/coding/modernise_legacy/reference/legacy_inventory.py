"""The old names of `inventory`, for programs that still use them."""

import warnings

import inventory


def _deprecated(old, new):
    warnings.warn(
        f"{old} is deprecated, use inventory.{new}", DeprecationWarning, stacklevel=3
    )


def _items(inv):
    return [inventory.Item(d["name"], d["qty"], d["price"]) for d in inv]


def readInventory(fname):
    """Use inventory.read_inventory."""
    _deprecated("readInventory", "read_inventory")
    return [
        {"name": item.name, "qty": item.quantity, "price": item.price}
        for item in inventory.read_inventory(fname)
    ]


def totalValue(inv):
    """Use inventory.total_value."""
    _deprecated("totalValue", "total_value")
    return inventory.total_value(_items(inv))


def itemsBelow(inv, lim):
    """Use inventory.items_below."""
    _deprecated("itemsBelow", "items_below")
    return inventory.items_below(_items(inv), lim)


def writeInventory(inv, fname):
    """Use inventory.write_inventory."""
    _deprecated("writeInventory", "write_inventory")
    return inventory.write_inventory(_items(inv), fname)
