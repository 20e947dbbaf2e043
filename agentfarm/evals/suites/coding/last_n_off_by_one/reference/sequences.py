"""Parts of sequences."""


def last_n(items, n):
    """Return the last `n` items as a list, in their order.

    Args:
        items: Any iterable, e.g. a list, a text or a generator.
        n: How many; all of them if there are fewer, none if it is 0.

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError("n must not be negative")
    items = list(items)
    return items[max(len(items) - n, 0) :]


def chunks(items, size):
    """Split items into lists of `size`; the last one may be shorter.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError("size must be at least 1")
    items = list(items)
    return [items[start : start + size] for start in range(0, len(items), size)]
