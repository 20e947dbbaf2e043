"""What agents remember, for how long, and for which project."""

import subprocess
import sys

import pytest

from agentfarm.agents._memory import MAX_CHARS, Memory
from agentfarm.errors import StoreError
from agentfarm.store import Store


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url):
    with Store.open(url) as store:
        yield store


def texts(memories):
    return [memory.text for memory in memories]


@pytest.fixture(params=["with a Store", "without"])
def memory(request, store):
    return Memory(store if request.param == "with a Store" else None, "shop")


async def test_what_was_added_is_recent_and_found(memory):
    await memory.add("Prices are in cents.")
    await memory.add("Ask Ida about cents", kind="hint", metadata={"step": 3})
    await memory.add("Nothing of that.")
    assert texts(memory.recent()) == [
        "Nothing of that.",
        "Ask Ida about cents",
        "Prices are in cents.",
    ]
    assert texts(memory.recent(1)) == ["Nothing of that."]
    found = await memory.search("CENTS prices?")
    assert texts(found) == ["Prices are in cents.", "Ask Ida about cents"]
    assert (found[1].kind, found[1].metadata) == ("hint", {"step": 3})
    assert texts(await memory.search("cents", limit=1)) == ["Ask Ida about cents"]
    assert await memory.search("unheard") == []


async def test_the_short_term_is_bounded_and_the_long_term_is_not(store):
    memory = Memory(store, "shop", short_term=3)
    for number in range(10):
        await memory.add(f"fact {number}")
    assert texts(memory.recent()) == ["fact 9", "fact 8", "fact 7"]
    assert len(await memory.search("fact", limit=100)) == 10
    alone = Memory(None, "shop", short_term=3)
    for number in range(10):
        await alone.add(f"fact {number}")
    assert len(await alone.search("fact", limit=100)) == 3


async def test_a_long_text_is_cut_and_says_so(memory):
    kept = await memory.add("z" * 10_000)
    assert MAX_CHARS - 10 < len(kept.text) <= MAX_CHARS
    left = 10_000 - kept.text.count("z")
    assert f"[… {left} characters left out …]" in kept.text
    whole = await memory.add("y" * MAX_CHARS)
    assert whole.text == "y" * MAX_CHARS


async def test_it_takes_the_place_of_the_one_with_its_id(memory):
    await memory.add("The first fact.", memory_id="1")
    await memory.add("Another fact.")
    await memory.add("The second fact.", memory_id="1")
    for found in (memory.recent(), await memory.search("fact")):
        assert texts(found) == ["The second fact.", "Another fact."]


async def test_it_survives_a_restart(url, store):
    script = """
import asyncio, sys
from agentfarm.agents._memory import Memory
from agentfarm.store import Store
with Store.open(sys.argv[1]) as store:
    asyncio.run(Memory(store, "shop").add("Prices are in cents."))
"""
    subprocess.run([sys.executable, "-c", script, url], check=True, timeout=60)
    memory = Memory(store, "shop")
    assert memory.recent() == []
    assert texts(await memory.search("cents")) == ["Prices are in cents."]


async def test_no_project_sees_anothers(store):
    shop, bank = Memory(store, "shop"), Memory(store, "bank")
    await shop.add("cents of the shop")
    await bank.add("cents of the bank")
    assert texts(await shop.search("cents")) == ["cents of the shop"]
    assert texts(shop.recent()) == ["cents of the shop"]
    assert texts(await bank.search("cents")) == ["cents of the bank"]


async def test_a_folder_is_one_project_however_it_is_written(store, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "link").symlink_to(work)
    await Memory(store, work).add("cents")
    for written in (tmp_path / "link", f"{tmp_path}/x/../work", str(work)):
        assert texts(await Memory(store, written).search("cents")) == ["cents"]
    assert await Memory(store, "work").search("cents") == []


async def test_a_store_for_reading_is_searched_and_not_written(url, store):
    await Memory(store, "shop").add("cents")
    with Store.open(url, read_only=True) as reader:
        memory = Memory(reader, "shop")
        await memory.add("more cents")
        assert texts(memory.recent()) == ["more cents"]
        assert texts(await memory.search("cents")) == ["cents"]


async def test_what_cannot_be_stored_is_an_error_and_still_at_hand(url):
    with Store.open(url) as store:
        memory = Memory(store, "shop")
    with pytest.raises(StoreError, match="is closed"):
        await memory.add("cents")
    assert texts(memory.recent()) == ["cents"]
