"""`agentfarm top`: the Store's latest requests and the GPUs, in one picture."""

import json
import time

import pytest

from agentfarm.events import RequestRecord
from agentfarm.store import Store


@pytest.fixture
def requests(settings):
    """Three requests of the last minute and one of yesterday, kept in the Store."""
    settings.home.mkdir(parents=True, exist_ok=True)
    now = time.time()
    ages = {"a": 5.0, "b": 10.0, "c": 20.0, "old": 86_400.0}
    with Store.open(settings.store_url) as store:
        for name, age_s in ages.items():
            failed = name == "b"
            store.add_request(
                RequestRecord(
                    request_id=name,
                    model=f"model-{name}",
                    provider="openai",
                    host="http://127.0.0.1:1",
                    started_at=now - age_s,
                    status="error" if failed else "ok",
                    error_type="ProviderTimeout" if failed else None,
                    latency_s=1.5,
                    ttft_s=None if failed else 0.25,
                    input_tokens=None if failed else 1200,
                    output_tokens=None if failed else 40,
                    output_tokens_per_s=None if failed else 32.0,
                )
            )


async def test_it_shows_the_latest_requests_and_the_gpus(cli, requests):
    done = await cli("top", "--once")
    assert done.code == 0
    shown = done.out
    assert "model-a" in shown
    assert "ProviderTimeout" in shown
    assert "1,200" in shown
    assert "32.0" in shown
    assert "model-old" not in shown
    # Newest first.
    latest = shown[shown.index("Latest requests") :]
    assert latest.index("model-a") < latest.index("model-b") < latest.index("model-c")
    assert "No GPU found" in shown or "GPU" in shown


async def test_it_gives_json_for_scripts(cli, requests):
    done = await cli("top", "--json")
    told = json.loads(done.out)
    assert told["requests"]["overall"]["requests"] == 3
    assert set(told["requests"]["by_model"]) == {"model-a", "model-b", "model-c"}
    assert "gpus" in told["gpus"]


async def test_without_requests_it_says_what_to_do(cli):
    done = await cli("top")
    assert done.code == 0
    assert "No LLM request has finished yet" in done.out
