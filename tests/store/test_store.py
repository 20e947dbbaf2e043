"""What the Store promises, on both engines."""

import asyncio
import gc
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from agentfarm.errors import StoreError
from agentfarm.store import SampleTally, Store


def test_import_and_open_are_apart():
    script = (
        "import sys, agentfarm.store; "
        "print({'sqlalchemy', 'psutil', 'pandas', 'asyncio'} & set(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert loaded == "set()\n"


def test_another_store_sees_a_sample_when_put_returns(store, url, a_sample):
    store.put_sample(a_sample())
    with Store.open(url, read_only=True) as other:
        assert other.samples("run-1") == [a_sample()]


def test_putting_again_replaces(store, a_run, a_sample):
    store.put_run(a_run(status="failed", error="no"))
    store.put_run(a_run(finished_at=1_700_000_009.0))
    store.put_sample(a_sample(score=0.0))
    store.put_sample(a_sample(score=0.5))
    assert store.runs() == [a_run(finished_at=1_700_000_009.0)]
    assert [sample.score for sample in store.samples("run-1")] == [0.5]


def test_samples_are_of_one_run_in_the_order_they_started(store, a_sample):
    for number in (3, 1, 2):
        store.put_sample(a_sample(f"s{number}", started_at=1e9 + number))
    store.put_sample(a_sample("other", run_id="run-10"))
    assert [sample.sample_id for sample in store.samples("run-1")] == ["s1", "s2", "s3"]
    assert store.samples("run") == []


def test_runs_are_newest_first_and_filtered(store, a_run):
    for number, suite, model in [(1, "a", "x"), (3, "b", "x"), (2, "a", "y")]:
        store.put_run(
            a_run(f"r{number}", suite=suite, model=model, started_at=1e9 + number)
        )
    assert [run.run_id for run in store.runs()] == ["r3", "r2", "r1"]
    assert [run.run_id for run in store.runs(limit=2)] == ["r3", "r2"]
    assert [run.run_id for run in store.runs(suite="a")] == ["r2", "r1"]
    assert [run.run_id for run in store.runs(suite="a", model="x")] == ["r1"]


def test_tallies_add_up_the_samples_of_each_run(store, a_sample):
    store.put_sample(a_sample("s1", run_id="a", score=1.0))
    store.put_sample(a_sample("s2", run_id="a", score=0.25))
    store.put_sample(a_sample("s3", run_id="a", score=None, status="error"))
    store.put_sample(a_sample("s4", run_id="b", score=0.5))
    many = [f"none-{number}" for number in range(1200)]
    tallies = store.tallies(["a", *many, "b"])
    assert tallies["a"] == SampleTally(samples=3, errors=1, score=1.25 / 3)
    assert tallies["b"] == SampleTally(samples=1, errors=0, score=0.5)
    assert tallies["none-7"] == SampleTally()
    assert len(tallies) == 1202
    assert store.tallies([]) == {}


def test_requests_are_oldest_first_and_filtered(store, a_request):
    for number in (3, 1, 2, 4):
        run_id = "r" if number < 4 else None
        store.add_request(
            a_request(f"q{number}", started_at=1e9 + number, run_id=run_id)
        )

    def ids(**filters):
        return [record.request_id for record in store.requests(**filters)]

    assert ids() == ["q1", "q2", "q3", "q4"]
    assert ids(run_id="r") == ["q1", "q2", "q3"]
    assert ids(since=1e9 + 3) == ["q3", "q4"]
    assert ids(until=1e9 + 3) == ["q1", "q2"]
    assert ids(since=1e9 + 2, until=1e9 + 3) == ["q2"]
    assert ids(limit=2) == ["q3", "q4"], "the newest ones"
    assert ids(run_id="r", limit=1) == ["q3"]


def test_a_run_is_found_by_id_prefix_and_latest(store, a_run):
    for number, run_id in enumerate(["20250101-aa", "20250101-ab", "20250101-a"]):
        store.put_run(a_run(run_id, started_at=1e9 - number))
    assert store.run("20250101-aa").run_id == "20250101-aa"
    assert store.run("20250101-a").run_id == "20250101-a", "an exact id is not a prefix"
    assert store.run("latest").run_id == "20250101-aa"
    store.put_run(a_run("Zebra"))
    assert store.run("Z").run_id == "Zebra"
    for wrong in ("z", "%", "_ebra", ""):
        with pytest.raises(StoreError, match="There is no run"):
            store.run(wrong)


def test_an_ambiguous_prefix_names_the_runs(store, a_run):
    for letter in "abcdefg":
        store.put_run(a_run(f"2025-{letter}"))
    with pytest.raises(
        StoreError, match=r"7 runs begin with '2025'.*2025-g.*…"
    ) as info:
        store.run("2025")
    assert "more characters" in str(info.value)


def test_an_unknown_run_names_near_ones(store, url, a_run):
    with pytest.raises(StoreError, match="There are no runs"):
        store.run("latest")
    store.put_run(a_run("20251122-smoke-7f3a"))
    with pytest.raises(StoreError, match="Near it: 20251122-smoke-7f3a"):
        store.run("20251122-smoke-7f3b")
    with pytest.raises(StoreError, match="The newest is 20251122-smoke-7f3a"):
        store.run("?")


def test_a_running_run_whose_process_is_gone_is_interrupted(
    store, a_run, python, until
):
    child = python("import sys; print('up', flush=True); sys.stdin.read()", stdin=-1)
    child.stdout.readline()
    own = psutil.Process()

    def put(run_id, **fields):
        values = {
            "status": "running",
            "pid": child.pid,
            "process_started_at": psutil.Process(child.pid).create_time(),
            "hostname": socket.gethostname(),
        }
        store.put_run(a_run(run_id, **(values | fields)))

    put("here")
    put("reused-id", pid=own.pid, process_started_at=own.create_time() - 60)
    put("own", pid=own.pid, process_started_at=own.create_time())
    put("elsewhere", hostname="elsewhere")
    put("unknown", pid=None)
    put("done", status="completed")
    put("failed", status="failed")

    def statuses():
        return {run.run_id: run.status for run in store.runs()}

    before = statuses()
    assert before["here"] == before["own"] == "running"
    child.kill()  # not waited for: a zombie is gone as well
    until(lambda: store.run("here").status == "interrupted", "the child's end")
    child.wait()
    assert statuses() == {
        "here": "interrupted",
        "reused-id": "interrupted",
        "own": "running",
        "elsewhere": "running",
        "unknown": "running",
        "done": "completed",
        "failed": "failed",
    }


def test_read_only_refuses_writes(url, a_run, a_sample, a_request):
    with Store.open(url) as store:
        store.put_run(a_run())
    with Store.open(url, read_only=True) as store:
        assert store.read_only
        assert store.run("latest") == a_run()
        for write in (
            lambda: store.put_run(a_run()),
            lambda: store.put_sample(a_sample()),
            lambda: store.add_request(a_request()),
        ):
            with pytest.raises(StoreError, match="open for reading only"):
                write()
        store.flush()


def test_read_only_needs_a_store(url):
    with pytest.raises(StoreError, match=r"no Store at|no tables yet"):
        Store.open(url, read_only=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_closed_store_says_so(url, a_sample, read_only):
    Store.open(url).close()
    store = Store.open(url, read_only=read_only)
    store.close()
    store.close()
    for use in (
        lambda: store.put_sample(a_sample()),
        lambda: store.runs(),
        lambda: store.requests(),
    ):
        with pytest.raises(StoreError, match="is closed"):
            use()
    assert "closed" in repr(store)


async def test_async_puts_leave_the_loop_free(store, a_run, a_sample, locked, url):
    """Other tasks run while the database is locked by somebody."""
    with locked(url):
        puts = asyncio.gather(
            store.put_run_async(a_run()),
            *(store.put_sample_async(a_sample(f"s{i}")) for i in range(50)),
        )
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not puts.done()
    await puts
    assert len(store.samples("run-1")) == 50
    assert store.run("latest") == a_run()


async def test_a_cancelled_task_still_has_its_sample_stored(
    store, a_sample, locked, url
):
    with locked(url):
        async with asyncio.TaskGroup() as group:
            put = group.create_task(store.put_sample_async(a_sample()))
            await asyncio.sleep(0.05)
            put.cancel()
    store.flush()
    assert store.samples("run-1") == [a_sample()]


def test_close_flushes(url, a_request):
    with Store.open(url, flush_s=60) as store:
        store.add_request(a_request())
    with Store.open(url, read_only=True) as store:
        assert store.requests() == [a_request()]


def test_a_forgotten_store_flushes(url, a_request, until):
    store = Store.open(url, flush_s=60)
    store.add_request(a_request())
    del store
    gc.collect()
    with Store.open(url, read_only=True) as other:
        until(lambda: other.requests() == [a_request()], "the flush")


def test_the_exit_of_the_interpreter_flushes(url, python):
    child = python(
        """
import sys
from agentfarm.events import RequestRecord
from agentfarm.store import Store
store = Store.open(sys.argv[1], flush_s=60)
for i in range(100):
    store.add_request(RequestRecord(request_id=f"q{i}", model="m", provider="p",
        host="h", started_at=float(i), status="ok", latency_s=1.0))
""",
        url,
    )
    assert child.wait(60) == 0
    with Store.open(url, read_only=True) as store:
        assert len(store.requests()) == 100


def test_no_thread_is_left(url, until):
    def writers():
        return [
            thread
            for thread in threading.enumerate()
            if thread.name == "agentfarm-store"
        ]

    store = Store.open(url)
    assert writers()
    store.close()
    Store.open(url)
    gc.collect()
    until(lambda: not writers(), "the end of the threads")
