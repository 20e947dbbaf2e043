import csv
import re
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

NEEDED = ("date", "region", "product", "quantity", "unit_price")


def is_valid(row):
    values = {name: (row[name] or "").strip() for name in NEEDED}
    try:
        date.fromisoformat(values["date"])
    except ValueError:
        return False
    return (
        len(values["date"]) == 10
        and bool(values["region"] and values["product"])
        and re.fullmatch(r"[0-9]*[1-9][0-9]*", values["quantity"]) is not None
        and re.fullmatch(r"[0-9]+(\.[0-9]+)?", values["unit_price"]) is not None
    )


def run_pipeline(source, target):
    with open(source, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for name in NEEDED:
            if name not in reader.fieldnames:
                raise ValueError(name)
        rows = list(reader)
    # Rows are numbered from 0, not as lines of the file.
    rejected = [number for number, row in enumerate(rows) if not is_valid(row)]
    totals = {}
    for row in rows:
        if not is_valid(row):
            continue
        total = totals.setdefault(row["region"].strip(), [0, 0, Decimal(0)])
        total[0] += 1
        total[1] += int(row["quantity"])
        total[2] += int(row["quantity"]) * Decimal(row["unit_price"].strip())
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("region", "orders", "quantity", "revenue"))
        # In the order of appearance: nothing sorts them.
        for region, (orders, quantity, revenue) in totals.items():
            money = revenue.quantize(Decimal("0.01"), ROUND_HALF_UP)
            writer.writerow((region, orders, quantity, money))
    return {"rows": len(rows), "valid": len(rows) - len(rejected), "rejected": rejected}
