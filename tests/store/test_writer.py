"""The writer under a stuck database, and with rows that a database refuses."""

import threading
import time

import pytest

from agentfarm.errors import StoreError
from agentfarm.store import Store


def test_telemetry_arrives_without_a_flush(url, store, a_request, until):
    store.add_request(a_request())
    with Store.open(url, read_only=True) as other:
        until(lambda: other.requests() == [a_request()], "the batch")


def test_a_large_batch_does_not_wait(url, a_request, until):
    with (
        Store.open(url, flush_s=600) as store,
        Store.open(url, read_only=True) as other,
    ):
        for i in range(499):
            store.add_request(a_request(f"q{i}"))
        assert other.requests() == []
        store.add_request(a_request("q499"))
        until(lambda: len(other.requests()) == 500, "the large batch")


def test_telemetry_goes_along_with_a_sample(url, a_sample, a_request):
    with (
        Store.open(url, flush_s=600) as store,
        Store.open(url, read_only=True) as other,
    ):
        store.add_request(a_request())
        store.put_sample(a_sample())
        assert other.requests() == [a_request()]


def test_of_too_much_telemetry_the_newest_is_kept_and_the_rest_counted(url, a_request):
    with Store.open(url, flush_s=600, buffer=5) as store:
        for i in range(20):
            store.add_request(a_request(f"q{i:02}"))
        assert store.dropped_requests == 15
        assert [r.request_id for r in store.requests()] == [
            f"q{i:02}" for i in range(15, 20)
        ]


def test_samples_outlast_a_locked_database(
    url, a_sample, a_request, locked, until, caplog
):
    """A put that ran out of patience says so, and its sample is stored after all."""
    with Store.open(url, buffer=10, patience_s=0.3) as store:
        with locked(url):
            with pytest.raises(
                StoreError, match=r"did not write within 0\.3 s"
            ) as info:
                store.put_sample(a_sample("s0"))
            assert "stay in memory" in str(info.value)

            def put_in_vain(i):
                with pytest.raises(StoreError):
                    store.put_sample(a_sample(f"s{i}"))

            puts = [
                threading.Thread(target=put_in_vain, args=(i,)) for i in range(1, 30)
            ]
            for put in puts:
                put.start()
            began = time.perf_counter()
            for i in range(1000):
                store.add_request(a_request(f"q{i}"))
            assert time.perf_counter() - began < 0.25, "adding never blocks"
            for put in puts:
                put.join()
            until(lambda: "write to" in caplog.text, "the warning")
        until(lambda: len(store.samples("run-1")) == 30, "the samples")
        kept = [record.request_id for record in store.requests()]
        assert len(kept) + store.dropped_requests == 1000
        assert kept[-1] in {"q999", "q99"}
        assert len(kept) >= 10
    assert "is written again" in caplog.text


def test_closing_a_stuck_store_says_what_is_lost(url, a_sample, a_request, locked):
    store = Store.open(url, patience_s=0.3)
    with locked(url):
        with pytest.raises(StoreError, match="did not write"):
            store.put_sample(a_sample())
        store.add_request(a_request())
        with pytest.raises(StoreError, match=r"2 rows were not written: .*lock"):
            store.close()
        store.close()


def test_a_refused_row_does_not_hold_up_the_others(url, a_sample, a_request, caplog):
    with Store.open(url, flush_s=600) as store:
        store.add_request(a_request("good"))
        store.add_request(a_request("bad", output_tokens=2**70))
        with pytest.raises(StoreError, match="Cannot write to the Store"):
            store.put_sample(a_sample("bad", epoch=2**70))
        store.put_sample(a_sample("good"))
        assert [sample.sample_id for sample in store.samples("run-1")] == ["good"]
        assert [record.request_id for record in store.requests()] == ["good"]
        assert store.dropped_requests == 1
    assert "A record of telemetry is dropped" in caplog.text


def test_many_threads_write_in_groups(store, a_sample):
    def put(worker):
        for i in range(25):
            store.put_sample(a_sample(f"{worker}-{i}"))

    threads = [threading.Thread(target=put, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.samples("run-1")) == 200
