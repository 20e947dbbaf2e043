"""What runs and their samples cost in energy."""

import socket

import pytest

from agentfarm.errors import StoreError
from agentfarm.evals import RunEnergy, energy_of_run, load_run, samples_frame
from agentfarm.events import RequestRecord
from agentfarm.store import GPUSampleRecord, RunRecord, SampleRecord, Store

T0 = 1_700_000_040.0
HERE = socket.gethostname()


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


@pytest.fixture
def put_run(store):
    """Keep a run of four samples; it took from second 100 to second 120."""

    def put(run_id="r", hostname=HERE, host="http://127.0.0.1:1"):
        store.put_run(
            RunRecord(
                run_id=run_id,
                suite="s",
                suite_hash="h",
                model="m",
                status="completed",
                started_at=T0 + 100,
                finished_at=T0 + 120,
                planned_samples=4,
                epochs=1,
                concurrency=1,
                hostname=hostname,
            )
        )
        workflow = {"workflow_run_id": f"{run_id}-workflow"}
        for number, (score, more) in enumerate(
            [(1.0, {}), (1.0, {}), (0.5, workflow), (None, {})]
        ):
            store.put_sample(
                SampleRecord(
                    sample_id=f"{run_id}-{number}",
                    run_id=run_id,
                    task=str(number),
                    epoch=1,
                    status="error" if score is None else "ok",
                    score=score,
                    input="",
                    target="",
                    output="",
                    scorer="exact",
                    started_at=T0 + 100 + number,
                    finished_at=T0 + 101 + number,
                    metadata=more,
                )
            )

        def ask(name, sample, start, end, **fields):
            values = {
                "run_id": run_id,
                "model": "m",
                "provider": "openai",
                "host": host,
                "status": "ok",
                "output_tokens": 100,
            }
            store.add_request(
                RequestRecord(
                    request_id=f"{run_id}-{name}",
                    sample_id=f"{run_id}-{sample}",
                    started_at=T0 + start,
                    latency_s=end - start,
                    **(values | fields),
                )
            )

        ask("a", 0, 101, 103)
        ask("b", 1, 105, 106, output_tokens=None)
        ask("c", 2, 110, 114, run_id=f"{run_id}-workflow")
        ask("d", 2, 115, 116, run_id=f"{run_id}-workflow")

    return put


def sample_gpu(store, until, power_w=200.0, hostname=HERE):
    """60 W, and `power_w` from second 100 to 120; hot from second 114.5 on."""
    for second in range(until + 1):
        store.add_gpu_sample(
            GPUSampleRecord(
                step_s=0,
                timestamp=T0 + second,
                hostname=hostname,
                uuid="GPU-1",
                gpu_index=0,
                vendor="amd",
                source="amdgpu",
                power_w=power_w if 100 <= second <= 120 else 60.0,
                junction_temperature_c=101.0 if second > 114 else 70.0,
            )
        )


def near(value):
    return pytest.approx(value, rel=1e-6)


def test_a_run_per_request_token_and_solved_sample(store, put_run):
    put_run()
    sample_gpu(store, 200)
    # 8 s of requests at 200 W, of which 60 W are idle; b does not tell its tokens.
    assert energy_of_run(store) == RunEnergy(
        run_id="r",
        requests=4,
        measured_requests=4,
        energy_j=near(1600.0),
        energy_above_idle_j=near(1120.0),
        span_energy_j=near(4000.0),
        idle_power_w=60.0,
        joules_per_request=near(400.0),
        joules_per_output_token=near(1400.0 / 300),
        solved_samples=2,
        joules_per_solved_sample=near(800.0),
        throttled=True,
        max_gpu_temperature_c=101.0,
    )


def test_the_samples_tell_theirs(store, put_run):
    put_run()
    sample_gpu(store, 200)
    frame = samples_frame(store, "r").set_index("task")
    assert list(frame.energy_j[:3]) == [near(400.0), near(200.0), near(1000.0)]
    assert list(frame.energy_above_idle_j[:3]) == [
        near(280.0),
        near(140.0),
        near(700.0),
    ]
    assert list(frame.throttled) == [False, False, True, None]
    assert list(frame.max_gpu_temperature_c[:3]) == [70.0, 70.0, 101.0]
    assert frame.energy_j.isna()["3"], "it asked for nothing"
    at_hand = load_run(store).samples_frame()
    assert list(at_hand) == list(samples_frame(store, "r"))
    assert at_hand.energy_j.isna().all()


def test_what_was_not_sampled_to_the_end_is_not_known(store, put_run):
    put_run()
    sample_gpu(store, 112)
    energy = energy_of_run(store, "r")
    assert (energy.requests, energy.measured_requests) == (4, 2)
    assert (energy.energy_j, energy.span_energy_j) == (None, None)
    assert energy.joules_per_request == near(300.0)
    assert energy.joules_per_output_token == near(4.0)
    assert energy.joules_per_solved_sample is None
    frame = samples_frame(store, "r")
    assert list(frame.energy_j[:2]) == [near(400.0), near(200.0)]
    assert frame.energy_j.isna()[2]


def test_a_run_on_another_machine_is_told_by_that_machines_gpus(store, put_run):
    put_run(hostname="elsewhere")
    sample_gpu(store, 200)
    assert energy_of_run(store).energy_j is None
    sample_gpu(store, 200, power_w=100.0, hostname="elsewhere")
    assert energy_of_run(store).energy_j == near(800.0)


def test_nothing_is_known_without_samples_or_of_a_remote_model(store, put_run):
    put_run("a")
    unknown = {"solved_samples": 2, "requests": 4}
    assert energy_of_run(store, "a") == RunEnergy(run_id="a", **unknown)
    put_run("b", host="https://llm.example.com")
    sample_gpu(store, 200)
    assert energy_of_run(store, "b") == RunEnergy(run_id="b", **unknown)
    with pytest.raises(StoreError, match="no run"):
        energy_of_run(store, "zzz")
