"""One sampler per Store: what it writes, says and survives, and who takes over."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import asdict

import anyio
import pytest

from agentfarm.config import SamplerSettings, load_settings
from agentfarm.errors import ConfigError
from agentfarm.events import EventBus, EventType
from agentfarm.monitoring import Sampler
from agentfarm.monitoring._samples import reading_of
from agentfarm.runtime import open_runtime
from agentfarm.store import GPUSampleRecord, HostSampleRecord, Store

FAST = SamplerSettings(interval_s=0.1)
DEADLINE_S = 20.0


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url):
    with Store.open(url, flush_s=0.01) as store:
        yield store


@pytest.fixture
def sampling(tmp_path):
    """A running sampler with a bus of its own."""

    @asynccontextmanager
    async def run(store, gpus, *, settings=FAST, **options):
        async with EventBus() as bus:
            options = {"disk": tmp_path, **options}
            sampler = Sampler(
                store=store, bus=bus, gpus=gpus, settings=settings, **options
            )
            events = bus.subscribe(EventType.HARDWARE)
            sampler.start()
            try:
                yield sampler, events
            finally:
                await sampler.aclose()

    return run


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the Store knows of no event
            await asyncio.sleep(0.01)


async def following(events, count=1):
    async with asyncio.timeout(DEADLINE_S):
        return [await anext(events) for _ in range(count)]


async def test_a_sample_is_stored_and_published(
    store, scripted_gpus, a_card, sampling, tmp_path
):
    async with sampling(store, scripted_gpus) as (sampler, events):
        first, *_, last = await following(events, 3)
        assert sampler.sampling
    json.dumps(last.to_dict(), allow_nan=False)
    assert last.data["gpus"] == [asdict(a_card())]
    assert (last.data["reason"], last.data["errors"]) == ("", {})
    rows, hosts = store.gpu_samples(), store.host_samples()
    assert len(rows) == len(hosts) >= 3
    row = rows[-1]
    assert (row.step_s, row.samples, row.uuid) == (0, 1, "GPU-1")
    assert (row.power_w, row.temperature_c) == (100.0, 60.0)
    assert (row.power_min_w, row.temperature_max_c) == (None, None)
    assert (row.throttled_share, row.thermal_share) == (1.0, 1.0)
    assert row.throttle_reasons == "hw_thermal_slowdown,sw_power_cap"
    assert reading_of(row) == a_card()
    assert rows[0].covered_s == 0.0
    assert row.covered_s == pytest.approx(row.timestamp - rows[-2].timestamp)
    host = hosts[-1]
    assert host.hostname == row.hostname == last.data["hostname"]
    assert 0 <= host.cpu_percent <= 100
    assert 0 < host.memory_used_bytes < host.memory_total_bytes
    assert 0 < host.disk_used_bytes <= host.disk_total_bytes
    assert host.load_1m >= 0
    assert first.data["host"]["cpu_percent"] is None, "of one moment alone"
    told = last.data["host"]
    assert told["memory_total_bytes"] == host.memory_total_bytes
    assert not {"step_s", "samples", "cpu_max_percent"} & told.keys()


async def test_reasons_that_are_not_heat_and_reasons_nobody_tells(
    store, scripted_gpus, a_card, sampling
):
    scripted_gpus.cards = (
        a_card(uuid="a", throttle_reasons=("sw_power_cap",)),
        a_card(uuid="b", throttle_reasons=()),
        a_card(uuid="c", throttle_reasons=None),
    )
    async with sampling(store, scripted_gpus) as (_, events):
        await following(events)
    shares = {
        row.uuid: (row.throttled_share, row.thermal_share, row.throttle_reasons)
        for row in store.gpu_samples()
    }
    assert shares == {
        "a": (1.0, 0.0, "sw_power_cap"),
        "b": (0.0, 0.0, ""),
        "c": (None, None, None),
    }
    assert [reading_of(row) for row in store.gpu_samples()[:3]] == [
        *scripted_gpus.cards
    ]


async def test_no_gpu_is_said_and_the_machine_is_sampled(
    store, scripted_gpus, sampling
):
    scripted_gpus.cards = ()
    async with sampling(store, scripted_gpus) as (_, events):
        (event,) = await following(events)
    assert (event.data["gpus"], event.data["reason"]) == ([], "No GPU found")
    assert store.gpu_samples() == []
    assert len(store.host_samples()) >= 1


async def test_a_failure_is_data_is_logged_once_and_ends_nothing(
    store, scripted_gpus, sampling, caplog
):
    scripted_gpus.error = RuntimeError("driver gone")
    async with sampling(store, scripted_gpus) as (_, events):
        for event in await following(events, 3):
            assert event.data["errors"] == {"gpus": "driver gone"}
            assert event.data["gpus"] == []
        assert store.gpu_samples() == []
        scripted_gpus.error = None
        async with asyncio.timeout(DEADLINE_S):
            while (await anext(events)).data["errors"]:
                pass
    assert len(store.gpu_samples()) >= 1
    (record,) = caplog.records
    assert "driver gone" in record.getMessage()


async def test_a_source_that_hangs_is_given_up(store, scripted_gpus, sampling):
    scripted_gpus.wait = anyio.Event()
    async with sampling(store, scripted_gpus, patience_s=0.05) as (_, events):
        first, second = await following(events, 2)
    assert first.data["errors"] == {"gpus": "no answer within 0.05 s"}
    assert second.data["host"]["memory_used_bytes"] > 0
    assert scripted_gpus.asked >= 2


async def test_a_machine_that_does_not_tell_is_a_row_with_the_reason(
    store, scripted_gpus, sampling, tmp_path
):
    nowhere = tmp_path / "nowhere"
    async with sampling(store, scripted_gpus, disk=nowhere) as (_, events):
        (event,) = await following(events)
    assert "nowhere" in event.data["errors"]["host"]
    assert len(event.data["gpus"]) == 1
    row = store.host_samples()[0]
    assert "nowhere" in row.error
    assert (row.cpu_percent, row.memory_used_bytes, row.covered_s) == (None, None, 0)


async def test_a_card_that_was_lost_covers_no_time(
    store, scripted_gpus, a_card, sampling
):
    async with sampling(store, scripted_gpus) as (_, events):
        await following(events, 2)
        scripted_gpus.cards = (a_card(power_w=None, error="fell off the bus"),)
        await until(lambda: any(row.error for row in store.gpu_samples()))
        scripted_gpus.cards = (a_card(),)
        await until(lambda: store.gpu_samples()[-1].error is None)
        await following(events, 2)
    rows = store.gpu_samples()
    lost = [row for row in rows if row.error]
    after = next(row for row in rows if row.timestamp > lost[-1].timestamp)
    assert {row.covered_s for row in lost} == {0.0}
    assert after.covered_s == 0.0
    assert rows[-1].covered_s > 0


async def test_of_many_one_samples_and_all_tell(url, store, scripted_gpus, sampling):
    with Store.open(url, flush_s=0.01) as other:
        async with (
            sampling(store, scripted_gpus) as (one, first),
            sampling(other, scripted_gpus) as (two, second),
            sampling(other, scripted_gpus) as (three, third),
        ):
            own = await following(first, 3)
            relayed = await following(second, 2)
            await following(third, 2)
            holders = [each for each in (one, two, three) if each.sampling]
            assert len(holders) == 1
    seen = {event.data["timestamp"]: event.data for event in own}
    same = [event.data for event in relayed if event.data["timestamp"] in seen]
    for data in same:
        assert data == seen[data["timestamp"]]
    assert all(event.data["gpus"] for event in relayed)
    times = [row.timestamp for row in store.gpu_samples()]
    assert scripted_gpus.asked == len(times) == len(set(times))


async def test_another_takes_over_when_one_is_closed(
    url, store, scripted_gpus, sampling
):
    with Store.open(url) as other:
        async with sampling(other, scripted_gpus) as (first, _):
            await until(lambda: first.sampling)
            async with sampling(store, scripted_gpus) as (second, events):
                await following(events, 1)
                assert not second.sampling
                await first.aclose()
                assert not first.sampling
                await until(lambda: second.sampling)
                first.start()
                await following(events, 2)
                assert not first.sampling


async def test_old_samples_are_averaged_and_older_ones_go(
    store, scripted_gpus, sampling
):
    now = time.time()
    begin = now // 60 * 60 - 7200
    for second in range(30):
        own = {"step_s": 0, "timestamp": begin + second, "hostname": "h"}
        store.add_gpu_sample(
            GPUSampleRecord(
                **own,
                uuid="old",
                gpu_index=0,
                vendor="amd",
                source="amdgpu",
                power_w=float(second),
            )
        )
        store.add_host_sample(HostSampleRecord(**own))
    ancient = {"step_s": 60, "timestamp": begin - 3 * 86400, "hostname": "h"}
    store.add_host_sample(HostSampleRecord(**ancient))
    store.flush()
    settings = SamplerSettings(interval_s=0.1, raw_hours=1, retention_days=2)

    def old():
        return [*store.gpu_samples(until=begin + 60), *store.host_samples(until=begin)]

    async with sampling(store, scripted_gpus, settings=settings):
        await until(lambda: len(old()) == 1)
    (row,) = old()
    assert (row.step_s, row.samples, row.power_w) == (60, 30, 14.5)
    (host,) = store.host_samples(hostname="h")
    assert (host.step_s, host.samples) == (60, 30)


async def test_a_runtime_samples_when_asked_and_stops_at_closing(settings):
    async with open_runtime(settings) as farm:
        assert not list(settings.home.glob("*.sampler.lock"))
        sampler = await farm.sampler()
        assert await farm.sampler() is sampler
        await until(lambda: sampler.sampling)
        with farm.bus.subscribe(EventType.HARDWARE) as events:
            await following(events)
        async with open_runtime(settings, read_only=True) as reader:
            assert await reader.sampler() is None
    assert not sampler.sampling
    off = settings.model_copy(update={"sampler": SamplerSettings(enabled=False)})
    async with open_runtime(off) as farm:
        assert await farm.sampler() is None


def test_the_interval_is_short_enough_for_energies(monkeypatch):
    monkeypatch.setenv("AGENTFARM_SAMPLER__INTERVAL_S", "0.5")
    monkeypatch.setenv("AGENTFARM_SAMPLER__RETENTION_DAYS", "7")
    settings = load_settings().sampler
    assert (settings.interval_s, settings.retention_days) == (0.5, 7)
    monkeypatch.setenv("AGENTFARM_SAMPLER__INTERVAL_S", "30")
    with pytest.raises(ConfigError, match="interval_s"):
        load_settings()
