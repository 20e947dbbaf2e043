"""What orders cost."""

TAX_PERCENT = {"SE": 25, "DE": 19, "NO": 0}
SHIPPING = {"SE": 4900, "DE": 4900, "NO": 14900}
FREE_SHIPPING_FROM = 50000
LARGE_QUANTITY = 10
LARGE_ORDER_ABOVE = 100000


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
        self.validate(order)
        subtotal = self.subtotal(order["lines"])
        discount = self.discount(subtotal, order["customer"])
        amount = subtotal - discount
        tax = self.tax(amount, order["country"])
        shipping = self.shipping(amount, order["country"])
        return {
            "subtotal": subtotal,
            "discount": discount,
            "tax": tax,
            "shipping": shipping,
            "total": amount + tax + shipping,
        }

    def validate(self, order):
        """Raise ValueError if the order is invalid."""
        if not order.get("customer") or not order["customer"].get("name"):
            raise ValueError("customer is missing")
        if not order.get("lines"):
            raise ValueError("order has no lines")
        for line in order["lines"]:
            if line["quantity"] <= 0:
                raise ValueError(f"invalid quantity for {line['product']}")
            if line["unit_price"] < 0:
                raise ValueError(f"invalid price for {line['product']}")
        if order.get("country") not in TAX_PERCENT:
            raise ValueError(f"unknown country {order.get('country')}")

    def subtotal(self, lines):
        """The sum of the lines, less 5 % for large quantities."""
        total = 0
        for line in lines:
            amount = line["quantity"] * line["unit_price"]
            if line["quantity"] >= LARGE_QUANTITY:
                amount -= amount * 5 // 100
            total += amount
        return total

    def discount(self, subtotal, customer):
        """10 % for members, and a fixed sum for large orders."""
        discount = subtotal * 10 // 100 if customer.get("member") else 0
        if subtotal > LARGE_ORDER_ABOVE:
            discount += 5000
        return min(discount, subtotal)

    def tax(self, amount, country):
        """Value-added tax."""
        return amount * TAX_PERCENT[country] // 100

    def shipping(self, amount, country):
        """Free from a certain amount on."""
        return 0 if amount >= FREE_SHIPPING_FROM else SHIPPING[country]
