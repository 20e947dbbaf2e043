import re
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

COLUMNS = ["date", "region", "product", "quantity", "unit_price"]


def run_pipeline(source, target):
    with open(source, encoding="utf-8") as file:
        lines = file.read().splitlines()
    header = lines[0].split(",")
    for column in COLUMNS:
        if column not in header:
            raise ValueError(f"missing column: {column}")
    sums, rejected = {}, []
    for number, line in enumerate(lines[1:], start=2):
        # Quoted fields with commas fall apart.
        row = dict(zip(header, (field.strip() for field in line.split(","))))
        try:
            datetime.strptime(row["date"], "%Y-%m-%d")
            if not row["region"] or not row["product"]:
                raise ValueError
            if not re.fullmatch(r"[0-9]+", row["quantity"]) or int(row["quantity"]) < 1:
                raise ValueError
            if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", row["unit_price"]):
                raise ValueError
        except (KeyError, ValueError):
            rejected.append(number)
            continue
        orders, quantity, revenue = sums.get(row["region"], (0, 0, Decimal(0)))
        count = int(row["quantity"])
        sums[row["region"]] = (
            orders + 1,
            quantity + count,
            revenue + count * Decimal(row["unit_price"]),
        )
    with open(target, "w", encoding="utf-8", newline="\n") as file:
        file.write("region,orders,quantity,revenue\n")
        for region in sorted(sums):
            orders, quantity, revenue = sums[region]
            revenue = revenue.quantize(Decimal("0.01"), ROUND_HALF_UP)
            file.write(f"{region},{orders},{quantity},{revenue}\n")
    rows = len(lines) - 1
    return {"rows": rows, "valid": rows - len(rejected), "rejected": rejected}
