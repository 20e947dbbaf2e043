"""Several real processes at one database, and what a kill leaves."""

import signal
import time

from agentfarm.store import Store

RECORDS = """
import sys, time
from agentfarm.events import RequestRecord
from agentfarm.store import SampleRecord, Store

def sample(sample_id, run_id):
    return SampleRecord(sample_id=sample_id, run_id=run_id, task="t", epoch=1,
        status="ok", score=1.0, input="i" * 200, target="t", output="o" * 500,
        scorer="exact", started_at=time.time(), finished_at=time.time())

def request(request_id, run_id):
    return RequestRecord(request_id=request_id, run_id=run_id, model="m",
        provider="p", host="h", started_at=time.time(), status="ok", latency_s=1.0)
"""

WRITER = """
url, name, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
with Store.open(url) as store:
    for i in range(rows):
        store.put_sample(sample(f"{name}-{i}", "run"))
        store.add_request(request(f"{name}-{i}", "run"))
"""

ENDLESS = """
store = Store.open(sys.argv[1])
for i in range(1000):
    store.add_request(request(f"flushed-{i}", "flushed"))
store.flush()
i = 0
while True:
    store.add_request(request(f"{i:09}", "telemetry"))
    store.put_sample(sample(f"{i}", "run"))
    print(i, flush=True)
    for j in range(3):
        i += 1
        store.add_request(request(f"{i:09}", "telemetry"))
"""


def test_processes_write_at_once_and_nothing_is_lost(url, python):
    """All begin at the same moment on an empty database, and others read meanwhile."""
    processes, rows = 4, 150
    writers = [
        python(RECORDS + WRITER, url, f"p{number}", rows, stdin=-1)
        for number in range(processes)
    ]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = 0
    with Store.open(url) as reader:
        while any(writer.poll() is None for writer in writers):
            now = len(reader.samples("run"))
            assert now >= seen
            seen = now
            reader.requests(limit=10)
        assert [writer.wait() for writer in writers] == [0] * processes
        expected = {
            f"p{number}-{i}" for number in range(processes) for i in range(rows)
        }
        assert {sample.sample_id for sample in reader.samples("run")} == expected
        assert {record.request_id for record in reader.requests()} == expected


def test_kill_9_loses_no_reported_sample_and_only_the_last_telemetry(url, python):
    child = python(RECORDS + ENDLESS, url)
    reported = [int(child.stdout.readline()) for _ in range(40)]
    child.send_signal(signal.SIGKILL)
    killed_at = time.time()
    reported += [int(line) for line in child.stdout.read().split("\n")[:-1] if line]
    assert child.wait() == -signal.SIGKILL
    with Store.open(url) as store:
        stored = {int(sample.sample_id) for sample in store.samples("run")}
        assert set(reported) <= stored
        assert len(store.requests(run_id="flushed")) == 1000
        telemetry = [int(r.request_id) for r in store.requests(run_id="telemetry")]
        assert telemetry == list(range(len(telemetry))), "only the end may be missing"
        # Each sample takes along the telemetry that came before it.
        assert len(telemetry) > max(stored)
        assert all(record.started_at <= killed_at for record in store.requests())
        store.put_sample(store.samples("run")[0])


def test_kill_9_loses_less_telemetry_than_a_batch_is_old(url, python):
    """Without samples to take it along: what is older than flush_s is stored."""
    child = python(
        RECORDS
        + """
store = Store.open(sys.argv[1], flush_s=0.2)
i = 0
while True:
    store.add_request(request(f"{i:09}", None))
    print(time.time(), flush=True)
    i += 1
    time.sleep(0.002)
""",
        url,
    )
    added = [float(child.stdout.readline()) for _ in range(1000)]
    child.kill()
    killed_at = time.time()
    added += [float(line) for line in child.stdout.read().split("\n")[:-1] if line]
    with Store.open(url) as store:
        stored = len(store.requests())
    # Generous, since a busy machine may not let the writer run in time.
    old = sum(at < killed_at - 0.2 - 1.0 for at in added)
    assert old > 100
    assert stored >= old
