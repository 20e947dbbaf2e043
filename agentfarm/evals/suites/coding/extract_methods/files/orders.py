"""What orders cost."""


class OrderProcessor:
    """Computes the price of an order; all amounts are whole cents."""

    def process(self, order):
        """Return the cost of an order.

        Args:
            order: A dict with `customer` (a dict with `name` and, for members,
                `member`: True), `country` (SE, DE or NO) and `lines`: a list of
                dicts with `product`, `quantity` and `unit_price` in cents.

        Raises:
            ValueError: The order is invalid; the message says why.
        """
        if not order.get("customer") or not order["customer"].get("name"):
            raise ValueError("customer is missing")
        if not order.get("lines"):
            raise ValueError("order has no lines")
        for line in order["lines"]:
            if line["quantity"] <= 0:
                raise ValueError(f"invalid quantity for {line['product']}")
            if line["unit_price"] < 0:
                raise ValueError(f"invalid price for {line['product']}")
        if order.get("country") not in ("SE", "DE", "NO"):
            raise ValueError(f"unknown country {order.get('country')}")
        s = 0
        for line in order["lines"]:
            t = line["quantity"] * line["unit_price"]
            if line["quantity"] >= 10:
                t = t - t * 5 // 100
            s = s + t
        d = 0
        if order["customer"].get("member"):
            d = d + s * 10 // 100
        if s > 100000:
            d = d + 5000
        if d > s:
            d = s
        a = s - d
        if order["country"] == "SE":
            x = a * 25 // 100
        elif order["country"] == "DE":
            x = a * 19 // 100
        else:
            x = 0
        if a >= 50000:
            sh = 0
        elif order["country"] == "NO":
            sh = 14900
        else:
            sh = 4900
        return {
            "subtotal": s,
            "discount": d,
            "tax": x,
            "shipping": sh,
            "total": a + x + sh,
        }
