"""The OpenAPI document, and a fuzzer that takes the server at its word."""

import sys

import anyio
import pytest

from agentfarm.config import SandboxSettings
from agentfarm.web.server import create_app

ENDPOINTS = {
    ("get", "/api/hardware"),
    ("get", "/api/hardware/gpu"),
    ("get", "/api/hardware/performance"),
    ("get", "/api/hardware/history"),
    ("get", "/api/providers"),
    ("get", "/api/router"),
    ("get", "/api/runs"),
    ("get", "/api/runs/{run_id}"),
    ("post", "/api/workflows"),
    ("get", "/api/workflows/{run_id}"),
    ("post", "/api/workflows/{run_id}/interrupt"),
    ("get", "/api/events"),
    ("get", "/metrics"),
    ("get", "/healthz"),
}


async def test_the_document_knows_every_endpoint_and_how_each_may_fail(settings, cards):
    paths = create_app(settings, gpus=cards).openapi()["paths"]
    found = {(method, path) for path, methods in paths.items() for method in methods}
    assert found == ENDPOINTS
    for methods in paths.values():
        for operation in methods.values():
            assert {"401", "403", "413", "429"} <= set(operation["responses"])
            assert operation["summary"]
            assert operation["description"]


async def test_the_document_says_where_a_token_is_needed(guarded, tokens, settings):
    headers = {"Authorization": f"Bearer {tokens.read_only}"}
    found = (await guarded.client().get("/openapi.json", headers=headers)).json()
    assert found["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert found["paths"]["/api/runs"]["get"]["security"] == [{"token": []}]
    assert found["paths"]["/healthz"]["get"]["security"] == []
    assert "securitySchemes" not in create_app(settings).openapi()["components"]


@pytest.mark.timeout(180)
async def test_a_fuzzer_finds_no_fault_and_no_answer_that_is_not_declared(
    settings, cards, serve, put_run, tmp_path
):
    # No sandbox, so that no task it invents is worked on.
    nowhere = {
        "docker_host": f"unix://{tmp_path}/no-engine.sock",
        "sandbox": SandboxSettings(backend="docker"),
    }
    app = create_app(settings.model_copy(update=nowhere), gpus=cards)
    async with serve(app) as served:
        await served.client().get("/healthz")
        put_run(app.state.farm.runtime.store)
        done = await anyio.run_process(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run"),
                f"{served.url}/openapi.json",
                *("--max-examples", "4", "--seed", "5", "--no-color"),
                *("--phases", "examples,coverage,fuzzing"),
            ],
            check=False,
            cwd=tmp_path,
        )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, said
    assert f"Selected: {len(ENDPOINTS)}/{len(ENDPOINTS)}" in said, said
