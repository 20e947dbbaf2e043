"""Orders in, sums by region out."""

import csv
import re
from collections import defaultdict
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

COLUMNS = ("date", "region", "product", "quantity", "unit_price")
PATTERNS = {
    "date": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "quantity": re.compile(r"[0-9]+"),
    "unit_price": re.compile(r"[0-9]+(\.[0-9]+)?"),
}


def run_pipeline(source, target):
    """Read, validate, sum, write; gives a report."""
    sums = defaultdict(lambda: [0, 0, Decimal(0)])
    rows, rejected = 0, []
    with open(source, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = [name.strip() for name in reader.fieldnames or ()]
        for column in COLUMNS:
            if column not in names:
                raise ValueError(f"The column {column} is missing.")
        reader.fieldnames = names
        for line, row in enumerate(reader, start=2):
            rows += 1
            order = checked(row)
            if order is None:
                rejected.append(line)
                continue
            region, quantity, price = order
            total = sums[region]
            total[0] += 1
            total[1] += quantity
            total[2] += quantity * price
    write(target, sums)
    return {"rows": rows, "valid": rows - len(rejected), "rejected": rejected}


def checked(row):
    """Region, quantity and price of a valid row, or None."""
    if any(value is None for name, value in row.items() if name is not None):
        return None
    fields = {name: row[name].strip() for name in COLUMNS}
    if not fields["region"] or not fields["product"]:
        return None
    if any(not form.fullmatch(fields[name]) for name, form in PATTERNS.items()):
        return None
    try:
        date.fromisoformat(fields["date"])
    except ValueError:
        return None
    quantity = int(fields["quantity"])
    return (fields["region"], quantity, Decimal(fields["unit_price"])) if quantity else None


def write(target, sums):
    """Write one line for each region."""
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["region", "orders", "quantity", "revenue"])
        for region, (orders, quantity, revenue) in sorted(sums.items()):
            rounded = revenue.quantize(Decimal("0.01"), ROUND_HALF_UP)
            writer.writerow([region, orders, quantity, rounded])
