"""Energies of known power curves, shared, above idle, unknown; and heat."""

import math
import socket

import pandas as pd
import pytest

from agentfarm.errors import AgentFarmError
from agentfarm.events import RequestRecord
from agentfarm.monitoring import (
    HeatLimits,
    RequestEnergy,
    energy_by_request,
    gpu_samples_frame,
    host_samples_frame,
)
from agentfarm.monitoring._energy import energy_meter, spans_of
from agentfarm.store import GPUSampleRecord, HostSampleRecord, RunRecord, Store
from agentfarm.store._columns import records_frame

T0 = 1_700_000_040.0  # where a minute begins
HERE = socket.gethostname()


def gpu(at, power_w=None, **fields):
    values = {
        "step_s": 0,
        "hostname": HERE,
        "uuid": "GPU-1",
        "gpu_index": 0,
        "vendor": "nvidia",
        "source": "nvml",
        "covered_s": 1.0,
    }
    return GPUSampleRecord(timestamp=T0 + at, power_w=power_w, **(values | fields))


def request(name, start, end, **fields):
    values = {
        "model": "m",
        "provider": "ollama",
        "host": "http://127.0.0.1:11434",
        "status": "ok",
    }
    return RequestRecord(
        request_id=name,
        started_at=T0 + start,
        latency_s=end - start,
        **(values | fields),
    )


def constant(power_w, seconds=60, **fields):
    return [gpu(second, power_w, **fields) for second in range(seconds + 1)]


def energies(requests, gpus, **options):
    """Through frames, as people do it; by request id."""
    frame = energy_by_request(
        records_frame(requests, RequestRecord),
        records_frame(gpus, GPUSampleRecord),
        **options,
    )
    assert list(frame) == list(RequestEnergy.__dataclass_fields__)
    assert list(frame.request_id) == [each.request_id for each in requests]
    return frame.set_index("request_id")


def joules(requests, gpus, **options):
    found = energies(requests, gpus, **options).energy_j
    return {name: None if math.isnan(j) else j for name, j in found.items()}


def near(value):
    return pytest.approx(value, rel=1e-6)


def test_constant_power_times_duration():
    asked = [request("a", 10, 14), request("b", 20.25, 20.75), request("c", 30, 30)]
    assert joules(asked, constant(250.0)) == {
        "a": near(1000.0),
        "b": near(125.0),
        "c": 0.0,
    }


def test_a_ramp_is_interpolated_at_both_ends():
    """Power t watts at second t: from 10.5 to 20.25 it is (20.25² - 10.5²) / 2."""
    ramp = [gpu(second, float(second)) for second in range(61)]
    found = joules([request("a", 10.5, 20.25), request("b", 3.25, 3.75)], ramp)
    assert found == {"a": near((20.25**2 - 10.5**2) / 2), "b": near(0.5 * 3.5)}


def test_a_triangle_between_uneven_samples():
    peak = [gpu(0, 0.0), gpu(4, 400.0), gpu(5, 0.0), gpu(9.5, 0.0)]
    assert joules([request("all", 0, 9.5)], peak) == {"all": near(1000.0)}
    assert joules([request("half", 2, 4.5)], peak) == {"half": near(600.0 + 150.0)}


def test_requests_that_overlap_share_by_equal_parts():
    asked = [request("a", 10, 20), request("b", 15, 25), request("c", 15, 20)]
    found = joules(asked, constant(120.0))
    assert found == {"a": near(600 + 200), "b": near(200 + 600), "c": near(200)}
    assert sum(found.values()) == near(15 * 120.0)


def test_requests_to_other_machines_have_none_and_take_no_share():
    far = {
        "lan": "http://192.0.2.7:11434",
        "name": "https://llm.example.com",
        "replay": "replay:session.jsonl",
        "nowhere": "",
        "odd": "http://[::1",
    }
    near_by = {
        "loopback": "http://127.0.0.2:1",
        "v6": "http://[::1]:8080",
        "localhost": "http://localhost:8080",
        "embedded": "embedded",
        "label": "embedded:smol",
        "own": f"http://{HERE.upper()}:8080",
    }
    asked = [
        *(request(name, 10, 20, host=host) for name, host in far.items()),
        *(
            request(name, 20 + 2 * number, 22 + 2 * number, host=host)
            for number, (name, host) in enumerate(near_by.items())
        ),
    ]
    gpus = constant(100.0, temperature_c=50.0, throttled_share=0.0, thermal_share=0.0)
    found = energies(asked, gpus)
    for name in far:
        assert found.energy_j.isna()[name]
        assert found.throttled[name] is None
        assert math.isnan(found.max_temperature_c[name])
    for name in near_by:
        assert found.energy_j[name] == near(200.0)
        assert found.throttled[name] is False


def test_all_cards_of_the_machine_count_and_no_other_machines():
    gpus = [
        *constant(100.0),
        *constant(50.0, uuid="GPU-2"),
        *constant(7.0, uuid="MIG-1", parent="GPU-1"),
        *constant(999.0, hostname="elsewhere"),
    ]
    assert joules([request("a", 10, 12)], gpus) == {"a": near(300.0)}


def test_what_is_not_known_is_none():
    gpus = constant(100.0)
    gap = [row for row in gpus if not T0 + 20 < row.timestamp < T0 + 25.5]
    asked = [
        request("before", 10, 20),
        request("inside", 21, 22),
        request("across", 10, 40),
        request("into", 24, 30),
        request("after", 26, 30),
        request("early", -1, 5),
        request("late", 50, 61),
    ]
    alone = [joules([each], gap) for each in asked]
    assert {name: joule for each in alone for name, joule in each.items()} == {
        "before": near(1000.0),
        "inside": None,
        "across": None,
        "into": None,
        "after": near(400.0),
        "early": None,
        "late": None,
    }
    assert joules([request("a", 10, 12)], []) == {"a": None}
    assert joules([], gpus) == {}


def test_a_reading_that_failed_is_bridged_and_a_card_without_power_is_not():
    flaky = [gpu(s, None if s in (12, 13) else 100.0) for s in range(61)]
    assert joules([request("a", 10, 20)], flaky) == {"a": near(1000.0)}
    silent = [*constant(100.0), *constant(None, uuid="GPU-2")]
    assert joules([request("a", 10, 20)], silent) == {"a": None}
    lost = [
        *constant(100.0),
        *(gpu(s, 50.0 if s < 30 else None, uuid="GPU-2") for s in range(61)),
    ]
    found = joules([request("a", 10, 20), request("b", 40, 50)], lost)
    assert found == {"a": near(1500.0), "b": None}


def test_a_longer_gap_is_bridged_where_that_is_wanted():
    sparse = [gpu(10 * step, 100.0) for step in range(7)]
    asked = [request("a", 12, 18)]
    assert joules(asked, sparse) == {"a": None}
    assert joules(asked, sparse, max_gap_s=10.0) == {"a": near(600.0)}


def test_idle_power_is_that_of_the_time_without_requests():
    """30 W when idle; 20 s after the request the card has come down."""
    gpus = [gpu(s, 230.0 if 100 <= s <= 110 else 30.0) for s in range(200)]
    asked = [request("a", 100, 110), request("b", 105, 110)]
    found = energies(asked, gpus)
    assert list(found.energy_j) == [near(5 * 230 + 5 * 115), near(5 * 115)]
    assert list(found.energy_above_idle_j) == [near(5 * 200 + 5 * 100), near(5 * 100)]
    given = energies(asked, gpus, idle_power_w=130.0)
    assert list(given.energy_above_idle_j) == [near(5 * 100 + 5 * 50), near(5 * 50)]
    cold = energies(asked, gpus, idle_power_w=500.0)
    assert list(cold.energy_above_idle_j) == [0.0, 0.0]


def test_idle_power_is_the_lowest_5th_percentile():
    """100 idle samples of 1 to 100 W: 5 W is the power that 5 of them don't exceed."""
    ramp = [gpu(second, float(second + 1)) for second in range(100)]
    busy = [gpu(second, 1000.0) for second in range(100, 115)]
    found = energies([request("a", 100, 110)], ramp + busy)
    assert found.energy_j["a"] == near(10_000.0)
    assert found.energy_above_idle_j["a"] == near(10_000.0 - 50.0)


def test_without_an_idle_time_it_is_unknown():
    found = energies([request("a", 0, 55), request("b", 5, 60)], constant(100.0))
    assert list(found.energy_j) == [near(500 + 2500), near(2500 + 500)]
    assert found.energy_above_idle_j.isna().all()


def minute(number, power_w, **fields):
    values = {"step_s": 60, "samples": 60, "covered_s": 60.0}
    return gpu(60 * number, power_w, **(values | fields))


def test_averages_are_constant_over_their_minute():
    gpus = [minute(0, 100.0), minute(1, 200.0), gpu(120.5, 300.0), gpu(121, 300.0)]
    asked = [
        request("inside", 10, 12),
        request("across", 50, 70),
        request("both", 119, 121),
    ]
    assert joules(asked, gpus) == {
        "inside": near(200.0),
        "across": near(1000.0 + 2000.0),
        "both": near(200.0 + 0.5 * 250.0 + 0.5 * 300.0),
    }


def test_a_late_sample_beside_its_average_changes_nothing():
    gpus = [minute(0, 100.0), gpu(5, 900.0), minute(1, 200.0)]
    found = joules([request("a", 3, 10), request("b", 55, 65)], gpus)
    assert found == {"a": near(700.0), "b": near(1500.0)}


def test_a_minute_with_a_hole_is_not_known():
    gpus = [minute(0, 100.0), minute(1, 200.0, covered_s=54.0), minute(2, 100.0)]
    asked = [request("a", 10, 50), request("b", 70, 80), request("c", 130, 140)]
    assert joules(asked, gpus) == {"a": near(4000.0), "b": None, "c": near(1000.0)}


def test_idle_minutes_count_by_their_samples():
    gpus = [minute(0, 30.0), *(gpu(60 + s, 230.0) for s in range(30))]
    found = energies([request("a", 65, 75)], gpus)
    assert found.energy_above_idle_j["a"] == near(2000.0)


@pytest.mark.parametrize(
    ("fields", "throttled", "hottest"),
    [
        ({}, None, None),
        ({"temperature_c": 70.0}, None, 70.0),
        ({"thermal_share": 0.0}, False, None),
        ({"thermal_share": 1.0, "temperature_c": 60.0}, True, 60.0),
        ({"temperature_c": 70.0, "temperature_limit_c": 80.0}, False, 70.0),
        ({"temperature_c": 75.0, "temperature_limit_c": 80.0}, True, 75.0),
        ({"junction_temperature_c": 99.9}, False, 99.9),
        ({"junction_temperature_c": 100.0, "temperature_c": 70.0}, True, 100.0),
        ({"junction_temperature_c": 96.0, "temperature_limit_c": 100.0}, True, 96.0),
        (
            {
                "junction_temperature_c": 96.0,
                "temperature_c": 80.0,
                "temperature_limit_c": 100.0,
            },
            False,
            96.0,
        ),
        ({"memory_temperature_c": 104.0, "thermal_share": 0.0}, False, None),
    ],
)
def test_heat_of_a_request(fields, throttled, hottest):
    gpus = [gpu(10, **fields), gpu(12)]
    found = energies([request("a", 10.2, 10.4)], gpus)
    assert found.throttled["a"] is throttled
    if hottest is None:
        assert math.isnan(found.max_temperature_c["a"])
    else:
        assert found.max_temperature_c["a"] == hottest


def test_heat_is_of_the_request_and_its_neighbours_alone():
    hot = {"thermal_share": 1.0, "temperature_c": 90.0}
    cool = {"thermal_share": 0.0, "temperature_c": 50.0}
    gpus = [gpu(s, 100.0, **(hot if 20 <= s <= 22 else cool)) for s in range(61)]
    asked = [
        request("before", 10.5, 18.5),
        request("during", 15.5, 25.5),
        request("between", 20.2, 20.3),
        request("touching", 17.5, 19.5),
        request("after", 23.5, 30),
    ]
    found = energies(asked, gpus)
    assert dict(found.throttled) == {
        "before": False,
        "during": True,
        "between": True,
        "touching": True,
        "after": False,
    }
    assert dict(found.max_temperature_c) == {
        "before": 50.0,
        "during": 90.0,
        "between": 90.0,
        "touching": 90.0,
        "after": 50.0,
    }
    far = energies([request("a", 80, 90)], gpus)
    assert far.throttled["a"] is None


def test_heat_of_any_card_and_of_an_averages_maximum():
    gpus = [
        minute(0, 100.0, temperature_c=60.0, temperature_max_c=84.0, thermal_share=0.1),
        minute(0, 100.0, uuid="GPU-2", temperature_c=50.0, thermal_share=0.0),
        minute(1, 100.0, temperature_c=60.0, temperature_max_c=61.0, thermal_share=0.0),
    ]
    found = energies([request("a", 10, 12), request("b", 62, 63)], gpus)
    assert list(found.throttled) == [True, False]
    assert list(found.max_temperature_c) == [84.0, 61.0]
    swapped = [
        minute(0, 100.0, thermal_share=0.0),
        minute(1, 100.0, thermal_share=0.1),
    ]
    assert energies([request("a", 57, 59)], swapped).throttled["a"] is False
    then = [minute(0, 100.0, thermal_share=0.1), gpu(62, thermal_share=0.0)]
    assert energies([request("a", 61, 61.5)], then).throttled["a"] is False


def test_other_thresholds_can_be_given():
    gpus = [gpu(10, junction_temperature_c=95.0), gpu(11, junction_temperature_c=95.0)]
    asked = [request("a", 10, 11)]
    assert energies(asked, gpus).throttled["a"] is False
    strict = energies(asked, gpus, limits=HeatLimits(junction_c=90.0))
    assert strict.throttled["a"] is True


def test_a_request_without_times_is_unknown_and_a_missing_column_is_named():
    asked = [request("a", 10, 12), request("b", math.nan, math.nan)]
    assert joules(asked, constant(100.0)) == {"a": near(200.0), "b": None}
    frame = records_frame(asked, RequestRecord)
    gpus = records_frame(constant(100.0), GPUSampleRecord)
    with pytest.raises(AgentFarmError, match="no latency_s in requests"):
        energy_by_request(frame.drop(columns="latency_s"), gpus)
    with pytest.raises(AgentFarmError, match="no power_w in gpus"):
        energy_by_request(frame, gpus.drop(columns="power_w"))
    few = gpus[["timestamp", "step_s", "hostname", "power_w"]]
    assert energy_by_request(frame, few).energy_j[0] == near(200.0)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def test_requests_of_others_take_their_share(store):
    """Unless they belong to a run on another machine."""
    elsewhere = RunRecord(
        run_id="far",
        suite="s",
        suite_hash="h",
        model="m",
        status="completed",
        started_at=T0,
        planned_samples=1,
        epochs=1,
        concurrency=1,
        hostname="elsewhere",
    )
    store.put_run(elsewhere)
    own = request("own", 10, 20, run_id="here")
    store.add_request(own)
    store.add_request(request("beside", 15, 25))
    store.add_request(request("far", 10, 20, run_id="far"))
    for row in constant(100.0) + constant(40.0, hostname="elsewhere"):
        store.add_gpu_sample(row)

    def cost(hostname):
        meter = energy_meter(store, [own], hostname=hostname)
        return meter.request(spans_of([own], hostname or HERE)[0]).energy_j

    assert cost(None) == near(500.0 + 250.0)
    assert energy_meter(store, [own]).between(T0 + 5, T0 + 10) == near(500.0)
    # Of `far` it is known; who sent `beside`, which belongs to no run, is not.
    assert cost("elsewhere") == near(5 * 40.0 / 2 + 5 * 40.0 / 3)


def test_frames_have_every_field_with_its_type(store):
    store.add_gpu_sample(gpu(0, 100.0, name="Card"))
    store.add_host_sample(HostSampleRecord(step_s=0, timestamp=T0, hostname=HERE))
    gpus, hosts = gpu_samples_frame(store), host_samples_frame(store)
    assert list(gpus) == list(GPUSampleRecord.__dataclass_fields__)
    assert list(hosts) == list(HostSampleRecord.__dataclass_fields__)
    assert (
        gpus.timestamp[0] == hosts.timestamp[0] == pd.Timestamp(T0, unit="s", tz="UTC")
    )
    assert (gpus.power_w.dtype, gpus.step_s.dtype) == ("float64", "int64")
    assert gpus.vram_used_bytes.dtype == "Int64"
    assert gpu_samples_frame(store, since=T0 + 1).dtypes.equals(gpus.dtypes)
    assert len(gpu_samples_frame(store, hostname="other")) == 0
    assert len(host_samples_frame(store, until=T0, step_s=60)) == 0
