import copy
import itertools
import json

import pytest
from orders import OrderProcessor

NAMES = ("validate", "subtotal", "discount", "tax", "shipping")


def plain(value):
    return json.loads(json.dumps(value))


def line(quantity, unit_price, product="Pen"):
    return {"product": product, "quantity": quantity, "unit_price": unit_price}


def order(*lines, country="SE", member=None):
    customer = {"name": "Ada"} if member is None else {"name": "Ada", "member": member}
    return {"customer": customer, "country": country, "lines": list(lines)}


def cost(subtotal, discount, tax, shipping, total):
    return {
        "subtotal": subtotal,
        "discount": discount,
        "tax": tax,
        "shipping": shipping,
        "total": total,
    }


def process(value):
    return plain(OrderProcessor().process(value))


def test_golden_orders_cost_the_same():
    assert process(order(line(2, 999))) == cost(1998, 0, 499, 4900, 7397)
    assert process(order(line(10, 333), line(1, 7), country="DE")) == cost(
        3171, 0, 602, 4900, 8673
    )
    assert process(order(line(3, 19999), country="NO", member=True)) == cost(
        59997, 5999, 0, 0, 53998
    )
    assert process(order(line(1, 5), country="NO", member=False)) == cost(
        5, 0, 0, 14900, 14905
    )
    assert process(order(line(101, 1000), line(7, 12345), member=True)) == cost(
        182365, 23236, 39782, 0, 198911
    )
    assert process(order(line(1, 0))) == cost(0, 0, 0, 4900, 4900)


def test_invalid_orders_are_refused_the_same():
    cases = [
        ({}, "customer is missing"),
        ({**order(line(1, 1)), "customer": {"name": ""}}, "customer is missing"),
        (order(), "order has no lines"),
        (order(line(1, 1), line(0, 1, "Ink")), "invalid quantity for Ink"),
        (order(line(1, -1, "Ink"), country="XX"), "invalid price for Ink"),
        (order(line(-1, -1, "Ink")), "invalid quantity for Ink"),
        (order(line(1, 1), country="XX"), "unknown country XX"),
        ({"customer": {"name": "Ada"}, "lines": [line(1, 1)]}, "unknown country None"),
    ]
    for value, message in cases:
        with pytest.raises(ValueError) as caught:
            OrderProcessor().process(value)
        assert str(caught.value) == message


def test_limits_of_discount_and_shipping():
    assert process(order(line(1, 100000)))["discount"] == 0
    assert process(order(line(1, 100001)))["discount"] == 5000
    assert process(order(line(1, 49999)))["shipping"] == 4900
    assert process(order(line(1, 50000)))["shipping"] == 0
    assert process(order(line(1, 49999), country="NO"))["shipping"] == 14900
    assert process(order(line(9, 100)))["subtotal"] == 900
    assert process(order(line(10, 100)))["subtotal"] == 950


def test_the_order_is_not_changed():
    value = order(line(10, 333), line(1, 7), member=True)
    before = copy.deepcopy(value)
    process(value)
    assert value == before


def test_validate_can_be_called():
    processor = OrderProcessor()
    assert processor.validate(order(line(1, 1))) is None
    for bad in ({}, order(), order(line(0, 1)), order(line(1, 1), country="XX")):
        with pytest.raises(ValueError):
            processor.validate(bad)


def test_subtotal_can_be_called():
    processor = OrderProcessor()
    assert plain(processor.subtotal([line(2, 999)])) == 1998
    assert plain(processor.subtotal([line(10, 333), line(11, 7)])) == 3164 + 74
    assert plain(processor.subtotal([])) == 0


def test_discount_can_be_called():
    processor = OrderProcessor()
    member, other = {"name": "Ada", "member": True}, {"name": "Bo"}
    assert plain(processor.discount(1999, member)) == 199
    assert plain(processor.discount(1999, other)) == 0
    assert plain(processor.discount(100001, other)) == 5000
    assert plain(processor.discount(200000, member)) == 25000


def test_tax_and_shipping_can_be_called():
    processor = OrderProcessor()
    taxes = [plain(processor.tax(999, country)) for country in ("SE", "DE", "NO")]
    assert taxes == [249, 189, 0]
    costs = [
        plain(processor.shipping(amount, country))
        for amount, country in itertools.product((49999, 50000), ("SE", "DE", "NO"))
    ]
    assert costs == [4900, 4900, 14900, 0, 0, 0]


def test_a_subclass_can_override_each_amount():
    class Free(OrderProcessor):
        def tax(self, amount, country):
            return 0

        def shipping(self, amount, country):
            return 1

    value = order(line(2, 1000))
    assert plain(Free().process(value)) == cost(2000, 0, 0, 1, 2001)

    class Round(OrderProcessor):
        def subtotal(self, lines):
            return 40000

        def discount(self, subtotal, customer):
            assert subtotal == 40000
            return 10000

    assert plain(Round().process(value)) == cost(40000, 10000, 7500, 4900, 42400)


def test_process_calls_each_method_once():
    calls = []

    def watched(name):
        def method(self, *arguments, **named):
            calls.append(name)
            return getattr(OrderProcessor, name)(self, *arguments, **named)

        return method

    Watched = type("Watched", (OrderProcessor,), {n: watched(n) for n in NAMES})
    assert plain(Watched().process(order(line(1, 100))))["total"] == 100 + 25 + 4900
    assert sorted(calls) == sorted(NAMES)
    assert calls[0] == "validate"
    calls.clear()
    with pytest.raises(ValueError):
        Watched().process(order())
    assert calls == ["validate"]
