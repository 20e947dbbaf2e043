"""Workflows, their steps and memories, on both engines."""

import asyncio
import os
import socket

import psutil
import pytest

from agentfarm.errors import StoreError
from agentfarm.store import Store


def test_another_store_sees_them_when_put_returns(
    store, url, a_workflow, a_step, a_memory
):
    store.put_workflow(a_workflow())
    store.put_workflow_step(a_step())
    store.add_memory(a_memory())
    with Store.open(url, read_only=True) as other:
        assert other.workflows() == [a_workflow()]
        assert other.workflow_steps("run-1") == [a_step()]
        assert other.memories("shop") == [a_memory()]


def test_putting_again_replaces(store, a_workflow, a_step, a_memory):
    for status in ("running", "completed"):
        store.put_workflow(a_workflow(status=status))
    for status in ("failed", "ok"):
        store.put_workflow_step(a_step(status=status))
    for text in ("old", "new"):
        store.add_memory(a_memory(text=text))
    assert [found.status for found in store.workflows()] == ["completed"]
    assert [found.status for found in store.workflow_steps("run-1")] == ["ok"]
    assert [found.text for found in store.memories("shop")] == ["new"]


def test_workflows_are_newest_first(store, a_workflow):
    for number in (1, 3, 2):
        store.put_workflow(a_workflow(f"w{number}", started_at=1e9 + number))
    assert [found.run_id for found in store.workflows()] == ["w3", "w2", "w1"]
    assert [found.run_id for found in store.workflows(limit=1)] == ["w3"]


def test_a_workflow_is_found_by_id_prefix_and_latest(store, a_workflow, a_run):
    store.put_run(a_run("2025-run"))
    with pytest.raises(StoreError, match=r"no workflows .* agentfarm run"):
        store.workflow("latest")
    for number, run_id in enumerate(["2025-aa", "2025-ab", "2025-a"]):
        store.put_workflow(a_workflow(run_id, started_at=1e9 - number))
    assert store.workflow("2025-ab").run_id == "2025-ab"
    assert store.workflow("2025-a").run_id == "2025-a", "an exact id is no prefix"
    assert store.workflow("latest").run_id == "2025-aa"
    with pytest.raises(StoreError, match=r"3 workflows begin with '2025'"):
        store.workflow("2025")
    with pytest.raises(StoreError, match=r"no workflow '2025-ac'.*Near it: 2025-a"):
        store.workflow("2025-ac")
    with pytest.raises(StoreError, match=r"The newest is 2025-aa\."):
        store.workflow("?")


def test_steps_are_of_one_workflow_in_their_order(store, a_step):
    for seq in (10, 2, 1):
        store.put_workflow_step(a_step(f"step:{seq}", seq=seq))
    store.put_workflow_step(a_step("step:1", run_id="run-10"))
    found = store.workflow_steps("run-1")
    assert [step.key for step in found] == ["step:1", "step:2", "step:10"]
    assert len(store.workflow_steps("run-10")) == 1
    assert store.workflow_steps("run") == []


def test_a_running_workflow_whose_process_is_gone_is_interrupted(store, a_workflow):
    own = psutil.Process()
    alive = {
        "status": "running",
        "pid": os.getpid(),
        "process_started_at": own.create_time(),
        "hostname": socket.gethostname(),
    }
    store.put_workflow(a_workflow("alive", **alive))
    # The id is used again, by this process.
    gone = alive | {"process_started_at": own.create_time() - 60}
    store.put_workflow(a_workflow("gone", **gone))
    store.put_workflow(a_workflow("done", **gone | {"status": "completed"}))
    statuses = {found.run_id: found.status for found in store.workflows()}
    wanted = {"alive": "running", "gone": "interrupted", "done": "completed"}
    assert statuses == wanted
    assert store.workflow("gone").status == "interrupted"


def texts(memories):
    return [memory.text for memory in memories]


@pytest.fixture
def remember(store, a_memory):
    """Adds texts to a project, each newer than the one before."""

    def add(*added, project="shop"):
        for number, text in enumerate(added):
            store.add_memory(
                a_memory(
                    f"{project}-{number:06}",
                    project=project,
                    text=text,
                    created_at=1e9 + number,
                )
            )

    return add


def test_memories_are_newest_first(store, remember):
    remember("a", "b", "c")
    assert texts(store.memories("shop")) == ["c", "b", "a"]
    assert texts(store.memories("shop", limit=2)) == ["c", "b"]
    assert texts(store.memories("shop", "?!", limit=2)) == ["c", "b"], "no words"


def test_memories_are_ranked_by_shared_words_then_newest(store, remember):
    remember(
        "Prices are in cents.",
        "The PRICE of tea",
        "prices, cents and öre",
        "nothing of that",
        "cents only",
    )
    found = store.memories("shop", "Prices in CENTS")
    assert texts(found) == [
        "Prices are in cents.",
        "prices, cents and öre",
        "cents only",
    ]
    assert texts(store.memories("shop", "ÖRE")) == ["prices, cents and öre"]
    assert texts(store.memories("shop", "o\u0308re")) == ["prices, cents and öre"]
    assert texts(store.memories("shop", "cents", limit=1)) == ["cents only"]
    assert store.memories("shop", "100% _") == []


def test_no_project_sees_anothers_memories(store, remember):
    remember("cents", project="shop")
    remember("cents too", project="shop2")
    remember("cents three", project="SHOP")
    assert texts(store.memories("shop")) == ["cents"]
    assert texts(store.memories("shop", "cents")) == ["cents"]
    assert store.memories("sho") == store.memories("%") == []


def test_read_only_refuses_them(url, a_workflow, a_step, a_memory):
    Store.open(url).close()
    with Store.open(url, read_only=True) as store:
        for write in (
            lambda: store.put_workflow(a_workflow()),
            lambda: store.put_workflow_step(a_step()),
            lambda: store.add_memory(a_memory()),
        ):
            with pytest.raises(StoreError, match="open for reading only"):
                write()


async def test_async_puts_leave_the_loop_free(
    store, url, locked, a_workflow, a_step, a_memory
):
    with locked(url):
        puts = asyncio.gather(
            store.put_workflow_async(a_workflow()),
            store.put_workflow_step_async(a_step()),
            store.add_memory_async(a_memory()),
        )
        for _ in range(5):
            await asyncio.sleep(0.005)
        assert not puts.done()
    await puts
    assert store.workflow("latest") == a_workflow()
    assert store.workflow_steps("run-1") == [a_step()]
    assert store.memories("shop") == [a_memory()]
