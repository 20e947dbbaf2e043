"""An inventory in a text file, one item a line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """What there is of one thing, and its price."""

    name: str
    qty: int
    price: int


def read_inventory(path):
    """The items of a file; none if there is no file."""
    path = Path(path)
    if not path.exists():
        return []
    lines = (line.strip() for line in path.read_text(encoding="utf-8").split("\n"))
    return [parse(line) for line in lines if line and not line.startswith("#")]


def parse(line):
    """The item of one line."""
    parts = line.split(";")
    if len(parts) != 3:
        raise ValueError(f"bad line: {line}")
    name, quantity, price = parts
    return Item(name.strip(), int(quantity), int(price))


def total_value(items):
    """The sum of quantity times price."""
    return sum(item.qty * item.price for item in items)


def items_below(items, limit):
    """The sorted names of items with a quantity below the limit."""
    return sorted(item.name for item in items if item.qty < limit)


def write_inventory(items, path):
    """Write items to a file and return their number."""
    lines = [f"{item.name};{item.qty};{item.price}\n" for item in items]
    Path(path).write_text("".join(lines), encoding="utf-8")
    return len(lines)
