"""`run_sync` runs beside whatever the caller's thread does."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest

from agentfarm.errors import EvalError, ModelNotFound
from agentfarm.evals import load_run, run, run_sync
from agentfarm.llm.testing import Reply
from agentfarm.store import Store


def test_it_runs_without_a_loop(make_suite, stub, stub_settings):
    stub.queue.extend(["1", "nope", "3"])
    suite = make_suite(3)
    result = run_sync(suite, settings=stub_settings, concurrency=1, progress=False)
    assert result.run.status == "completed"
    assert result.score == pytest.approx(2 / 3)
    assert len(result.requests) == 3
    with Store.open(stub_settings.store_url, read_only=True) as store:
        assert load_run(store).samples == result.samples


async def test_it_runs_under_a_running_loop_and_leaves_asyncio_alone(
    make_suite, stub, stub_settings
):
    parts = ("Task", "Future", "run", "get_event_loop", "new_event_loop")
    before = [getattr(asyncio, name) for name in parts]
    loop = asyncio.get_running_loop()
    policy = asyncio.get_event_loop_policy()
    for _ in range(2):
        result = run_sync(make_suite(2), settings=stub_settings, progress=False)
        assert result.run.status == "completed"
    assert (await run(make_suite(2), settings=stub_settings, progress=False)).samples
    assert [getattr(asyncio, name) for name in parts] == before
    assert asyncio.get_running_loop() is loop
    assert asyncio.get_event_loop_policy() is policy


def test_errors_arrive_as_they_are(make_suite, stub_settings):
    with pytest.raises(ModelNotFound, match="No model 'x'"):
        run_sync(make_suite(), model="x", settings=stub_settings, progress=False)
    with pytest.raises(EvalError, match="no suite"):
        run_sync("no-such-suite", settings=stub_settings, progress=False)


def test_ctrl_c_interrupts_the_run_and_keeps_it(make_suite, stub, stub_settings):
    stub.queue.extend(["1", "2"])
    stub.default = Reply("never", first_delay_s=60.0)
    main = threading.get_ident()

    def press():
        deadline = time.monotonic() + 10
        # Three requests have come, so two samples are in the Store.
        while len(stub.chats) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_sync(make_suite(5), settings=stub_settings, concurrency=1, progress=False)
    assert time.monotonic() - start < 15
    presser.join()
    deadline = time.monotonic() + 5
    while stub.active and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stub.active == 0, "the request in flight was not closed"
    with Store.open(stub_settings.store_url, read_only=True) as store:
        kept = load_run(store)
    assert kept.run.status == "interrupted"
    assert [sample.task for sample in kept.samples] == ["t1", "t2"]

    stub.default = "ok"
    again = run_sync(
        make_suite(5), settings=stub_settings, resume=kept.run.run_id, progress=False
    )
    assert (again.run.status, len(again.samples)) == ("completed", 5)


VICTIM = """
import sys
from agentfarm import load_settings
from agentfarm.evals import Suite, Task, exact, run_sync

class Told:
    def start(self, run, finished): pass
    def sample_started(self, task, epoch): pass
    def stop(self, run): pass
    def sample_finished(self, sample): print(sample.sample_id, flush=True)

tasks = tuple(
    Task(id=f"t{n}", prompt="?", target="ok", scorer=exact()) for n in range(500)
)
model = {"name": "stub", "provider": "openai", "url": sys.argv[1], "model": "m"}
settings = load_settings(home=sys.argv[2], default_model="stub", models=(model,))
run_sync(Suite(name="s", tasks=tasks), settings=settings, progress=Told())
"""


def test_a_killed_run_keeps_every_finished_sample(stub, stub_settings):
    command = [sys.executable, "-c", VICTIM, stub.url, str(stub_settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = [process.stdout.readline().strip() for _ in range(25)]
        process.kill()
        told += process.stdout.read().split()
    with Store.open(stub_settings.store_url, read_only=True) as store:
        kept = load_run(store)
    assert 25 <= len(told) < 500
    assert set(told) <= {sample.sample_id for sample in kept.samples}
    assert kept.run.status == "interrupted"
