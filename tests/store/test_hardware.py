"""Samples of hardware: read back, averaged, given up; and who may do it alone."""

import os
import random
import signal
import time

import pytest

from agentfarm.errors import StoreError
from agentfarm.store import Store

MINUTE = 1_700_000_040.0
NEVER, ALWAYS = 0.0, 1e12


def compacted(store, *, raw_before=ALWAYS, keep_after=NEVER):
    """Compact until nothing is left to do; how many transactions it took."""
    store.flush()
    steps = 0
    while store.compact_samples(raw_before=raw_before, keep_after=keep_after):
        steps += 1
    return steps


def test_a_minute_becomes_one_row_per_card(store, a_gpu_sample):
    for second, power in ((0, 100.0), (20, 200.0), (59.9, None)):
        store.add_gpu_sample(
            a_gpu_sample(
                MINUTE + second,
                name="Card",
                power_w=power,
                power_limit_w=350.0,
                temperature_c=50.0 + second,
                utilization_percent=None,
                vram_used_bytes=10 + int(second),
                covered_s=1.5,
                throttled_share=1.0 if second else 0.0,
                thermal_share=0.0,
                throttle_reasons="sw_power_cap" if second else "",
            )
        )
    store.add_gpu_sample(a_gpu_sample(MINUTE, uuid="GPU-2", power_w=7.0))
    store.add_gpu_sample(a_gpu_sample(MINUTE + 60, power_w=8.0))
    assert compacted(store, raw_before=MINUTE + 60) == 1
    first, second, raw = store.gpu_samples()
    assert first == a_gpu_sample(
        MINUTE,
        step_s=60,
        name="Card",
        samples=3,
        covered_s=4.5,
        power_w=150.0,
        power_min_w=100.0,
        power_max_w=200.0,
        power_limit_w=350.0,
        temperature_c=pytest.approx((50 + 70 + 109.9) / 3),
        temperature_min_c=50.0,
        temperature_max_c=109.9,
        vram_used_bytes=36,
        vram_used_max_bytes=69,
        throttled_share=pytest.approx(2 / 3),
        thermal_share=0.0,
    )
    assert (second.uuid, second.power_w, second.samples) == ("GPU-2", 7.0, 1)
    assert raw == a_gpu_sample(MINUTE + 60, power_w=8.0)


def test_a_machine_is_averaged_too(store, a_host_sample):
    for second, busy in ((0, 10.0), (1, 30.0)):
        store.add_host_sample(
            a_host_sample(
                MINUTE + second,
                cpu_percent=busy,
                memory_used_bytes=2**40 + second,
                disk_write_bytes_per_s=busy * 1e6,
                error="Boom" if second else None,
            )
        )
    assert compacted(store) == 1
    assert store.host_samples() == [
        a_host_sample(
            MINUTE,
            step_s=60,
            samples=2,
            cpu_percent=20.0,
            cpu_min_percent=10.0,
            cpu_max_percent=30.0,
            memory_used_bytes=store.host_samples()[0].memory_used_bytes,
            memory_used_max_bytes=2**40 + 1,
            disk_write_bytes_per_s=2e7,
            error="Boom",
        )
    ]
    assert store.host_samples()[0].memory_used_bytes - 2**40 in (0, 1)


def test_a_late_sample_is_averaged_into_its_minute(store, a_gpu_sample):
    """As a clock that was set back makes them."""
    for second in range(3):
        store.add_gpu_sample(a_gpu_sample(MINUTE + second, power_w=100.0))
    assert compacted(store) == 1
    store.add_gpu_sample(a_gpu_sample(MINUTE + 5, power_w=200.0))
    assert compacted(store) == 1
    assert store.gpu_samples() == [
        a_gpu_sample(
            MINUTE,
            step_s=60,
            samples=4,
            power_w=125.0,
            power_min_w=100.0,
            power_max_w=200.0,
        )
    ]


def test_only_whole_minutes_before_the_limit_are_averaged(store, a_gpu_sample):
    for second in (0, 59, 60, 119, 120):
        store.add_gpu_sample(a_gpu_sample(MINUTE + second))
    assert compacted(store, raw_before=MINUTE + 119.9) == 1
    assert [row.step_s for row in store.gpu_samples()] == [60, 0, 0, 0]
    assert compacted(store, raw_before=MINUTE + 120) == 1
    assert [row.step_s for row in store.gpu_samples()] == [60, 60, 0]


def test_old_averages_go_an_hour_at_a_time(store, a_gpu_sample, a_host_sample):
    for minute in range(150):
        store.add_gpu_sample(a_gpu_sample(MINUTE + 60 * minute, step_s=60))
        store.add_host_sample(a_host_sample(MINUTE + 60 * minute, step_s=60))
    store.add_gpu_sample(a_gpu_sample(MINUTE))
    steps = compacted(store, raw_before=NEVER, keep_after=MINUTE + 60 * 100)
    assert steps == 2
    kept = [MINUTE + 60 * minute for minute in range(100, 150)]
    assert [row.timestamp for row in store.gpu_samples(step_s=None)] == [MINUTE, *kept]
    assert [row.timestamp for row in store.host_samples()] == kept


def test_samples_are_read_by_time_machine_and_step(store, a_gpu_sample):
    store.add_gpu_sample(a_gpu_sample(MINUTE - 60, step_s=60, power_w=40.0, samples=9))
    for second in range(120):
        store.add_gpu_sample(a_gpu_sample(MINUTE + second, power_w=float(second)))
    store.add_gpu_sample(a_gpu_sample(MINUTE + 1, hostname="other"))
    times = [row.timestamp for row in store.gpu_samples(hostname="lab")]
    assert times == [MINUTE - 60, *(MINUTE + second for second in range(120))]
    assert {row.step_s for row in store.gpu_samples(step_s=0)} == {0}
    some = store.gpu_samples(since=MINUTE + 1, until=MINUTE + 3)
    assert [(row.timestamp - MINUTE, row.hostname) for row in some] == [
        *((1, "lab"), (1, "other"), (2, "lab"))
    ]
    by_30 = store.gpu_samples(step_s=30, hostname="lab")
    assert [(row.timestamp - MINUTE, row.step_s, row.power_w) for row in by_30] == [
        (-60, 60, 40.0),
        *((0, 30, 14.5), (30, 30, 44.5), (60, 30, 74.5), (90, 30, 104.5)),
    ]
    assert (by_30[1].power_min_w, by_30[1].power_max_w) == (0.0, 29.0)
    (both,) = store.gpu_samples(step_s=86400, since=MINUTE - 60, hostname="lab")
    assert (both.samples, both.power_max_w) == (129, 119.0)
    assert both.power_w == pytest.approx((40.0 * 9 + sum(range(120))) / 129)


def test_another_process_sees_them_and_a_reader_may_not_compact(
    url, store, a_gpu_sample, until
):
    store.add_gpu_sample(a_gpu_sample())
    with Store.open(url, read_only=True) as reader:
        until(lambda: reader.gpu_samples() == [a_gpu_sample()], "the sample")
        with pytest.raises(StoreError, match="reading only"):
            reader.compact_samples(raw_before=ALWAYS, keep_after=NEVER)
        with pytest.raises(StoreError, match="reading only"):
            reader.claim("sampler")


def test_hardware_pushes_no_request_out(url, a_gpu_sample, a_request):
    with Store.open(url, flush_s=600, buffer=5) as store:
        store.add_request(a_request())
        for second in range(20):
            store.add_gpu_sample(a_gpu_sample(MINUTE + second))
        assert (store.dropped_requests, store.dropped_samples) == (0, 15)
        assert store.requests() == [a_request()]
        assert len(store.gpu_samples()) == 5


def test_a_locked_database_delays_the_compaction(url, a_gpu_sample, locked):
    with Store.open(url) as store:
        store.add_gpu_sample(a_gpu_sample())
    with (
        Store.open(url, patience_s=0.2) as store,
        locked(url),
        pytest.raises(StoreError, match="Cannot tidy the Store"),
    ):
        store.compact_samples(raw_before=ALWAYS, keep_after=NEVER)
    with Store.open(url) as store:
        assert compacted(store) == 1


NO_DELETION = {
    "sqlite": [
        (
            "CREATE TRIGGER broken BEFORE DELETE ON gpu_samples "
            "BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    ],
    "postgres": [
        (
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RAISE EXCEPTION ''broken''; END'"
        ),
        (
            "CREATE TRIGGER broken BEFORE DELETE ON gpu_samples "
            "FOR EACH ROW EXECUTE FUNCTION broken()"
        ),
    ],
}


def test_a_minute_whose_deletion_fails_stays_raw(url, store, a_gpu_sample):
    from sqlalchemy import NullPool, create_engine, text

    rows = [a_gpu_sample(MINUTE + second, power_w=1.0) for second in range(3)]
    for row in rows:
        store.add_gpu_sample(row)
    store.flush()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in NO_DELETION["sqlite" if "sqlite" in url else "postgres"]:
            connection.execute(text(statement))
    with pytest.raises(StoreError, match="broken"):
        compacted(store)
    assert store.gpu_samples() == rows
    with engine.begin() as connection:
        on_table = "" if "sqlite" in url else " ON gpu_samples"
        connection.execute(text("DROP TRIGGER broken" + on_table))
    assert compacted(store) == 1
    assert [row.samples for row in store.gpu_samples()] == [3]


COMPACTING = """
import sys
from agentfarm.store import Store

store = Store.open(sys.argv[1])
print("go", flush=True)
while store.compact_samples(raw_before=1e12, keep_after=0.0):
    pass
print("done", flush=True)
"""


def test_kill_9_between_averaging_and_deleting_loses_and_doubles_nothing(
    url, python, a_gpu_sample, a_host_sample
):
    minutes = 200
    with Store.open(url) as store:
        for minute in range(minutes):
            for second in range(10):
                at = MINUTE + 60 * minute + 6 * second
                for uuid in ("GPU-1", "GPU-2"):
                    store.add_gpu_sample(
                        a_gpu_sample(at, uuid=uuid, power_w=float(minute))
                    )
                store.add_host_sample(a_host_sample(at, cpu_percent=float(second)))
    rng = random.Random(7)  # noqa: S311 - moments that can be repeated
    kills = 0
    for _ in range(4):
        child = python(COMPACTING, url)
        assert child.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        kills += "done" not in child.stdout.read()
        child.wait()
        check_whole(url, minutes)
    assert kills >= 1
    with Store.open(url) as store:
        compacted(store)
        assert {row.step_s for row in store.gpu_samples()} == {60}
    check_whole(url, minutes)


def check_whole(url, minutes):
    """Every minute is there, raw or averaged, with all its samples and its power."""
    with Store.open(url, read_only=True) as store:
        rows, hosts = store.gpu_samples(), store.host_samples()
    for minute in range(minutes):
        begin = MINUTE + 60 * minute
        these = [row for row in rows if begin <= row.timestamp < begin + 60]
        machine = [row for row in hosts if begin <= row.timestamp < begin + 60]
        (step,) = {row.step_s for row in (*these, *machine)}
        assert len(these) == (2 if step else 20)
        assert sum(row.samples for row in these) == 20
        assert {row.power_w for row in these} == {float(minute)}
        assert sum(row.samples for row in machine) == 10


def test_two_that_compact_at_once_do_it_once(url, python, a_gpu_sample):
    with Store.open(url) as store:
        for minute in range(100):
            for second in range(10):
                at = MINUTE + 60 * minute + 6 * second
                store.add_gpu_sample(a_gpu_sample(at, power_w=float(second)))
    children = [python(COMPACTING, url) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    with Store.open(url) as store:
        rows = store.gpu_samples()
    assert [(row.samples, row.power_w) for row in rows] == [(10, 4.5)] * 100


def test_a_claim_is_one_holders_until_it_is_released(url, store):
    first, second = store.claim("sampler"), store.claim("sampler")
    assert first.take()
    assert first.take()
    assert first.held()
    assert not second.take()
    assert not second.held()
    assert store.claim("other").take()
    with Store.open(url) as again:
        assert not again.claim("sampler").take()
        first.release()
        third = again.claim("sampler")
        deadline = time.monotonic() + 5
        while not third.take():
            assert time.monotonic() < deadline
        assert not second.take()
        third.release()


HOLDING = """
import sys
from agentfarm.store import Store

store = Store.open(sys.argv[1])
claim = store.claim("sampler")
print(claim.take(), flush=True)
sys.stdin.read()
"""


def test_the_claim_of_a_dead_process_is_free(url, store, python, until):
    child = python(HOLDING, url, stdin=-1)
    assert child.stdout.readline() == "True\n"
    claim = store.claim("sampler")
    assert not claim.take()
    child.send_signal(signal.SIGKILL)
    until(claim.take, "the claim of the dead")
    claim.release()


FORKING = HOLDING.replace(
    "sys.stdin.read()",
    """
import os
if os.fork():
    sys.stdin.read()
else:
    print(claim.held(), os.getpid(), flush=True)
    os.read(0, 1)  # until the test ends
""",
)


def test_a_forked_child_does_not_keep_the_claim_of_its_dead_parent(
    sqlite_url, python, until
):
    child = python(FORKING, sqlite_url, stdin=-1)
    assert child.stdout.readline() == "True\n"
    held, orphan = child.stdout.readline().split()
    assert held == "False"
    with Store.open(sqlite_url) as store:
        claim = store.claim("sampler")
        try:
            assert not claim.take(), "the parent lives"
            child.send_signal(signal.SIGKILL)
            until(claim.take, "the claim")
            os.kill(int(orphan), 0)
        finally:
            os.kill(int(orphan), signal.SIGKILL)
        claim.release()


def test_a_lock_file_that_is_gone_is_no_claim(tmp_path, sqlite_url):
    with Store.open(sqlite_url) as store:
        first, second = store.claim("sampler"), store.claim("sampler")
        assert first.take()
        (tmp_path / "store.db.sampler.lock").unlink()
        assert not first.held()
        assert second.take()
        assert not first.take()
        second.release()


@pytest.mark.postgres
def test_a_claim_ends_with_its_connection(postgres_url):
    from sqlalchemy import NullPool, create_engine, text

    with Store.open(postgres_url) as store:
        claim = store.claim("sampler")
        assert claim.take()
        with create_engine(postgres_url, poolclass=NullPool).begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE application_name = 'agentfarm'"
                )
            )
        assert not claim.held()
        assert claim.take()
        claim.release()
