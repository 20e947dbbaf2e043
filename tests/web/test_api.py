"""The endpoints: what they say, and that polling them is cheap."""

import re
import time

import anyio

from agentfarm import open_runtime
from agentfarm.events import EventType
from agentfarm.monitoring import GPUReading
from agentfarm.store import GPUSampleRecord, HostSampleRecord
from agentfarm.web._follower import StoreFollower
from agentfarm.web._metrics import Metrics
from agentfarm.web._performance import PerformanceFeed
from agentfarm.web.server import create_app


async def until(http, path, holds):
    """Poll until the answer is as it should be."""
    with anyio.fail_after(5):
        while not holds(found := await got(http, path)):
            pass
    return found


async def got(http, path, **options):
    answer = await http.get(path, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def test_performance_counts_requests_by_model_and_agent(http, ask):
    await ask(agent="planner")
    await ask(agent="executor")
    await ask()
    found = await got(http, "/api/hardware/performance")
    overall = found["overall"]
    assert overall["total_requests"] == 3
    assert overall["success_rate"] == 1.0
    assert overall["tokens"] == {"input": 24, "output": 12, "total": 36}
    assert overall["latency_ms"]["p50"] <= overall["latency_ms"]["p95"]
    assert overall["tokens_per_second"] > 0
    assert set(found["by_model"]) == {"stub"}
    assert found["by_agent"]["planner"]["total_requests"] == 1
    assert [each["agent"] for each in found["recent"]] == [None, "executor", "planner"]


async def test_tokens_that_no_server_counted_are_null_and_not_zero(http, farm, record):
    for number in range(3):
        one = record(str(number), status="error", error_type="ProviderError")
        farm.bus.emit(EventType.LLM_ERROR, {"record": one})
    found = await got(http, "/api/hardware/performance")
    assert found["overall"]["tokens"] == {"input": None, "output": None, "total": None}
    assert found["overall"]["success_rate"] == 0.0
    assert found["overall"]["latency_ms"]["p95"] is None
    assert found["recent"][0]["error_type"] == "ProviderError"


async def test_a_poll_without_news_is_304_and_the_next_request_is_news(http, ask):
    first = await http.get("/api/hardware/performance")
    known = {"If-None-Match": first.headers["etag"]}
    again = await http.get("/api/hardware/performance", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    await ask()
    news = await http.get("/api/hardware/performance", headers=known)
    assert news.status_code == 200
    assert news.json()["overall"]["total_requests"] == 1


async def test_what_others_put_into_the_store_is_counted_once(
    settings, cards, serve, record
):
    async with open_runtime(settings) as other:
        other.store.add_request(record("theirs", output_tokens=7))
    async with serve(create_app(settings, gpus=cards)) as served:
        http = served.client()
        path = "/api/hardware/performance"
        found = await until(http, path, lambda found: found["recent"])
        assert found["overall"]["total_requests"] == 1
        assert found["overall"]["tokens"]["output"] == 7
        assert found["recent"][0]["request_id"] == "theirs"


async def test_without_a_gpu_it_says_what_was_tried(http):
    found = await got(http, "/api/hardware/gpu")
    assert found["reason"] == "No GPU found"
    assert found["gpus"] == []
    assert found["tried"][0] == {"source": "nvml", "reason": "no driver"}
    assert (await got(http, "/api/hardware"))["host"] is None


async def test_a_gpu_is_read_once_for_all_who_ask_together(http, cards):
    cards.gpus = (
        GPUReading(
            uuid="GPU-1", index=0, vendor="nvidia", source="nvml", temperature_c=61.0
        ),
    )
    for _ in range(5):
        found = await got(http, "/api/hardware/gpu")
    assert cards.reads == 1
    assert found["gpus"][0]["temperature_c"] == 61.0
    assert found["gpus"][0]["power_w"] is None


async def test_the_past_comes_in_the_steps_that_were_asked_for(http, farm):
    begin = (time.time() // 60 - 30) * 60
    for second in range(120):
        moment = {"timestamp": begin + second, "step_s": 0, "hostname": "here"}
        farm.store.add_host_sample(HostSampleRecord(**moment, cpu_percent=second))
        farm.store.add_gpu_sample(
            GPUSampleRecord(
                **moment,
                uuid="GPU-1",
                gpu_index=0,
                vendor="amd",
                source="amdgpu",
                power_w=100.0,
            )
        )
    farm.store.flush()
    span = {"since": begin, "until": begin + 120}
    found = await got(http, "/api/hardware/history", params={**span, "step": 60})
    assert [each["cpu_percent"] for each in found["host"]] == [29.5, 89.5]
    assert [each["power_w"] for each in found["gpus"]] == [100.0, 100.0]
    raw = await got(http, "/api/hardware/history", params={**span, "step": 0})
    assert len(raw["gpus"]) == 120
    wide = {"since": 0, "until": begin, "step": 1}
    assert (await got(http, "/api/hardware/history", params=wide))["step_s"] > 86_400
    assert (await got(http, "/api/hardware/history"))["step_s"] == 6


async def test_the_newest_sample_of_this_host_is_how_it_does_now(http, farm):
    import socket

    now = {"timestamp": time.time(), "step_s": 0}
    elsewhere = HostSampleRecord(**now, hostname="elsewhere", cpu_percent=1.0)
    here = HostSampleRecord(**now, hostname=socket.gethostname(), cpu_percent=42.0)
    farm.store.add_host_sample(elsewhere)
    farm.store.add_host_sample(here)
    farm.store.flush()
    assert (await got(http, "/api/hardware"))["host"]["cpu_percent"] == 42.0


async def test_providers_are_asked_and_the_router_tells_its_state(http, stub):
    found = (await got(http, "/api/providers"))["providers"]
    assert [each["models"] for each in found] == [["stub"], ["embedded"]]
    assert found[0]["ok"] is True
    before = len(stub.requests)
    await got(http, "/api/providers")
    assert len(stub.requests) == before
    state = await got(http, "/api/router")
    assert [model["name"] for model in state["models"]] == ["stub", "embedded"]
    assert state["models"][0]["circuit"] == "closed"


async def test_runs_are_listed_with_their_scores(http, farm, put_run):
    run = put_run(farm.store)
    put_run(farm.store, suite="other", started_at=1.6e9)
    found = (await got(http, "/api/runs"))["runs"]
    assert [each["suite"] for each in found] == ["smoke", "other"]
    assert (found[0]["run_id"], found[0]["score"]) == (run.run_id, 0.5)
    assert (found[0]["samples"], found[0]["errors"]) == (2, 1)
    one = await got(http, "/api/runs", params={"suite": "other"})
    assert [each["suite"] for each in one["runs"]] == ["other"]
    late = await got(http, "/api/runs", params={"since": 1.7e9})
    assert [each["suite"] for each in late["runs"]] == ["smoke"]


async def test_a_run_has_its_samples_and_their_texts_if_asked(http, farm, put_run):
    run = put_run(farm.store)
    found = await got(http, "/api/runs/latest")
    assert found["run_id"] == run.run_id
    assert found["config"] == {"temperature": 0.0}
    assert [each["latency_ms"] for each in found["sample_list"]] == [500.0, 500.0]
    assert found["sample_list"][0]["output"] is None
    path = f"/api/runs/{run.run_id}"
    full = await got(http, path, params={"texts": "true"})
    assert full["sample_list"][0]["output"] == "4"
    tag = (await http.get(path)).headers["etag"]
    assert (await http.get(path, headers={"If-None-Match": tag})).status_code == 304


async def test_what_is_not_there_is_404_in_the_shape_of_every_problem(
    http, farm, put_run
):
    for path in ("/api/runs/20200101T", "/api/workflows/latest", "/api/nothing"):
        answer = await http.get(path)
        assert answer.status_code == 404
        assert set(answer.json()) == {"detail", "remedy"}
    put_run(farm.store)
    near = await http.get("/api/runs/nope")
    assert "nope" in near.json()["detail"]
    assert "newest is" in near.json()["remedy"]


async def test_a_parameter_that_makes_no_sense_is_named(http):
    for path in ("/api/runs?limit=0", "/api/runs/a..b", "/api/hardware/history?step=x"):
        answer = await http.get(path)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(("query.", "path."))


def farm_seq(farm) -> int:
    """The number of the bus's newest event."""
    return farm.bus.history(limit=1)[0].seq


async def test_events_are_polled_from_where_one_left_off(http, farm, ask):
    await ask(run_id="r1")
    found = await until(
        http, "/api/events", lambda found: found["seq"] == farm_seq(farm)
    )
    first, last = found["events"][0], found["events"][-1]
    assert (first["seq"], last["seq"]) == (1, found["seq"])
    assert (found["oldest"], found["missing"]) == (1, 0)
    since = {"since": found["seq"]}
    assert (await got(http, "/api/events", params=since))["events"] == []
    page = await got(http, "/api/events", params={"since": 0, "limit": 2})
    assert [each["seq"] for each in page["events"]] == [1, 2]
    assert page["seq"] == 2
    some = await got(
        http, "/api/events", params={"types": "llm_request", "run_id": "r1"}
    )
    assert [each["type"] for each in some["events"]] == ["llm_request"]
    tag = (await http.get("/api/events")).headers["etag"]
    again = await http.get("/api/events", headers={"If-None-Match": tag})
    assert again.status_code == 304


async def test_metrics_speak_prometheus_with_opentelemetrys_names(http, ask, cards):
    cards.gpus = (
        GPUReading(
            uuid="GPU-1",
            index=0,
            vendor="nvidia",
            source="nvml",
            name='The "best"',
            utilization_percent=50.0,
            throttle_reasons=(),
        ),
    )
    await ask(agent="planner")
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    labels = (
        'gen_ai_operation_name="chat",gen_ai_provider_name="openai",'
        'gen_ai_request_model="stub",gen_ai_agent_name="planner"'
    )
    usage = "gen_ai_client_token_usage"
    assert f'{usage}_sum{{{labels},gen_ai_token_type="output"}} 4.0' in lines
    assert f'{usage}_bucket{{{labels},gen_ai_token_type="output",le="4"}} 1' in lines
    duration = "gen_ai_client_operation_duration_seconds"
    assert f'{duration}_count{{{labels},error_type=""}} 1' in lines
    gpu = 'hw_id="GPU-1",hw_name="The \\"best\\"",hw_parent="",hw_type="gpu"'
    assert f"hw_gpu_utilization_ratio{{{gpu}}} 0.5" in lines
    assert f"agentfarm_gpu_throttled{{{gpu}}} 0.0" in lines
    assert "hw_power_watts" not in answer.text
    assert 'agentfarm_events_total{type="llm_response"} 1' in lines


async def test_a_server_that_opened_its_own_runtime_closes_it(settings, cards, serve):
    app = create_app(settings, gpus=cards)
    assert not settings.home.exists()
    async with serve(app) as served:
        assert await got(served.client(), "/healthz") == {"status": "ok"}
        store = app.state.farm.runtime.store
    assert "closed" in repr(store)
    assert app.state.farm is None


async def test_own_requests_and_those_of_others_are_each_counted_once(
    farm, settings, ask, record
):
    performance, metrics = PerformanceFeed(farm), Metrics(farm.bus)
    follower = StoreFollower(farm, performance, metrics, interval_s=0.01)
    async with open_runtime(settings) as other, anyio.create_task_group() as tasks:
        other.store.add_request(record("before"))
        other.store.flush()
        tasks.start_soon(follower.run)
        await ask()
        for number in range(3):
            # A request appears when it ends, long after it began.
            one = record(f"late-{number}", started_at=time.time() - 600)
            other.store.add_request(one)
            other.store.flush()
            with anyio.fail_after(10):
                # Nothing else tells that a row of another process was read.
                while f"late-{number}" not in performance.read()[0].decode():  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert farm.tracker.snapshot().overall.requests == 5
    # Prometheus counts what happened, not what lay in the Store at the start.
    counts = re.findall(r"duration_seconds_count\{.*\} (\d+)", metrics.text())
    assert sum(map(int, counts)) == 4
