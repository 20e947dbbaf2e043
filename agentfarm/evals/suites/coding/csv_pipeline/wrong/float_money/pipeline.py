import csv
from datetime import datetime


def run_pipeline(source, target):
    needed = ["date", "region", "product", "quantity", "unit_price"]
    sums, rejected, rows = {}, [], 0
    with open(source, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for column in needed:
            if column not in (reader.fieldnames or []):
                raise ValueError(f"missing column: {column}")
        for line, row in enumerate(reader, start=2):
            rows += 1
            try:
                datetime.strptime(row["date"].strip(), "%Y-%m-%d")
                region, product = row["region"].strip(), row["product"].strip()
                quantity = int(row["quantity"])
                # Floats: 1e3 and nan are prices, and sums are not exact.
                price = float(row["unit_price"])
                if not region or not product or quantity <= 0 or price < 0:
                    raise ValueError("invalid row")
            except (AttributeError, TypeError, ValueError):
                rejected.append(line)
                continue
            entry = sums.setdefault(region, [0, 0, 0.0])
            entry[0] += 1
            entry[1] += quantity
            entry[2] += quantity * price
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["region", "orders", "quantity", "revenue"])
        for region, (orders, quantity, revenue) in sorted(sums.items()):
            writer.writerow([region, orders, quantity, f"{revenue:.2f}"])
    return {"rows": rows, "valid": rows - len(rejected), "rejected": rejected}
