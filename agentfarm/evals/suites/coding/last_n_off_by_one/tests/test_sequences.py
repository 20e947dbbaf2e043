import json

import pytest
from sequences import chunks, last_n


def listed(value):
    """The value as JSON has it, which must be a list."""
    assert type(value) is list
    return json.loads(json.dumps(value))


def test_the_last_items_are_returned():
    assert listed(last_n([1, 2, 3, 4, 5], 3)) == [3, 4, 5]
    assert listed(last_n([1, 2, 3, 4, 5], 1)) == [5]


def test_all_items_if_n_is_their_number():
    assert listed(last_n([1, 2, 3], 3)) == [1, 2, 3]
    assert listed(last_n([1], 1)) == [1]


def test_all_items_if_there_are_fewer():
    assert listed(last_n([1, 2, 3], 4)) == [1, 2, 3]
    assert listed(last_n([1, 2, 3], 5)) == [1, 2, 3]
    assert listed(last_n([1, 2, 3], 100)) == [1, 2, 3]
    assert listed(last_n([], 2)) == []


def test_none_for_zero():
    assert listed(last_n([1, 2, 3], 0)) == []
    assert listed(last_n([], 0)) == []


def test_a_negative_count_is_refused():
    for n in (-1, -3):
        with pytest.raises(ValueError):
            last_n([1, 2, 3], n)


def test_any_iterable_will_do():
    assert listed(last_n("abcd", 2)) == ["c", "d"]
    assert listed(last_n((1, 2, 3), 2)) == [2, 3]
    assert listed(last_n((number * 2 for number in range(5)), 2)) == [6, 8]
    assert listed(last_n(iter({"a": 1, "b": 2}), 9)) == ["a", "b"]


def test_the_items_are_not_changed():
    items = [1, 2, 3]
    result = last_n(items, 3)
    assert listed(result) == [1, 2, 3]
    result.append(4)
    assert items == [1, 2, 3]


def test_chunks_still_works():
    assert listed(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert listed(chunks([], 2)) == []
    with pytest.raises(ValueError):
        chunks([1], 0)
