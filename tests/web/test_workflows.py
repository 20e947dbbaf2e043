"""Workflows over HTTP, in a real sandbox: started, watched, interrupted, resumed."""

import json
from pathlib import Path

import anyio
import pytest

from agentfarm.config import SandboxSettings
from agentfarm.llm.testing import Reply, StubServer
from agentfarm.web.server import create_app

PLAN = {
    "summary": "Write it.",
    "interface": False,
    "steps": [{"id": "1", "title": "Write calc.py", "detail": "", "depends_on": []}],
}
APPROVED = {"verdict": "approve", "findings": [], "summary": "Fine."}
WRITE = {
    "tool": "write_file",
    "arguments": {"path": "calc.py", "content": "def one():\n    return 1\n"},
}
FOREVER_S = 300.0


class Team:
    """A model that plays every role; the executor may take its time."""

    def __init__(self) -> None:
        self.delay_s = 0.0

    def __call__(self, request):
        system = request.body["messages"][0]["content"].lower()
        if "planner" in system:
            return json.dumps(PLAN)
        if "reviewer" in system:
            return json.dumps(APPROVED)
        written = len(request.body["messages"]) > 2
        answer = json.dumps({"final": "It is written."} if written else WRITE)
        return Reply(answer, first_delay_s=self.delay_s)


@pytest.fixture
def team() -> Team:
    return Team()


@pytest.fixture
async def stub(team):
    async with StubServer(respond=team) as server:
        yield server


async def state(http, run_id, holds):
    """Poll until the workflow is as it should be."""
    with anyio.fail_after(60):
        while True:
            answer = await http.get(f"/api/workflows/{run_id}")
            assert answer.status_code == 200
            if holds(found := answer.json()):
                return found
            await anyio.sleep(0.02)


def ended(found) -> bool:
    return found["status"] != "running"


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
async def test_a_task_is_worked_on_beside_the_request(http, farm, sandbox_image):
    answer = await http.post("/api/workflows", json={"task": "Write one()."})
    assert answer.status_code == 202, answer.text
    begun = answer.json()
    assert answer.headers["location"] == f"/api/workflows/{begun['run_id']}"
    assert (begun["status"], begun["interruptible"]) == ("running", True)
    folder = Path(begun["workspace"])
    assert folder == farm.settings.home / "workspaces" / begun["run_id"]

    found = await state(http, begun["run_id"], ended)
    assert found["status"] == "completed", found
    assert (folder / "calc.py").read_text().startswith("def one()")
    assert found["steps"][0]["key"] == "plan"
    assert found["tokens"]["total"] > 0
    assert set(found["tokens"]["by_agent"]) >= {"planner", "executor", "reviewer"}
    assert found["summary"]
    assert found["interruptible"] is False
    again = await http.post(f"/api/workflows/{begun['run_id']}/interrupt")
    assert again.status_code == 409
    assert "completed" in again.json()["detail"]
    metrics = (await http.get("/metrics")).text
    assert "gen_ai_workflow_duration_seconds_count" in metrics


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
async def test_an_interrupted_one_keeps_what_it_finished_and_can_be_resumed(
    http, farm, team, stub, sandbox_image
):
    team.delay_s = FOREVER_S
    asked = {"task": "Write one().", "workspace": "mine", "model": "stub"}
    run_id = (await http.post("/api/workflows", json=asked)).json()["run_id"]
    await stub.wait_until(lambda stub: len(stub.chats) == 2, timeout_s=30)
    answer = await http.post(f"/api/workflows/{run_id}/interrupt")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["status"], found["interruptible"]) == ("interrupted", False)
    assert [step["key"] for step in found["steps"]] == ["plan"]

    team.delay_s = 0.0
    workflow = await farm.workflow(Path(found["workspace"]))
    result = await workflow.run(resume=run_id)
    assert result.status == "completed"
    assert sum("planner" in str(chat.body).lower() for chat in stub.chats) == 1


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
async def test_a_server_that_stops_interrupts_what_runs(
    farm, cards, serve, team, stub, sandbox_image
):
    team.delay_s = FOREVER_S
    async with serve(create_app(farm, gpus=cards)) as served:
        http = served.client()
        answer = await http.post("/api/workflows", json={"task": "Write one()."})
        run_id = answer.json()["run_id"]
        await stub.wait_until(lambda stub: len(stub.chats) == 2, timeout_s=30)
    assert farm.store.workflow(run_id).status == "interrupted"


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
async def test_no_more_than_allowed_run_at_once(
    farm, cards, serve, team, sandbox_image
):
    team.delay_s = FOREVER_S
    web = farm.settings.web.model_copy(update={"max_workflows": 1})
    changed = farm.settings.model_copy(update={"web": web})
    async with serve(create_app(changed, gpus=cards)) as served:
        http = served.client()
        task = {"task": "Write one()."}
        statuses = [
            (await http.post("/api/workflows", json=task)).status_code for _ in "ab"
        ]
    assert statuses == [202, 409]


async def test_only_a_new_folder_among_the_workspaces_can_be_named(
    farm, http, tmp_path
):
    outside = tmp_path / "outside"
    outside.mkdir()
    workspaces = farm.settings.home / "workspaces"
    workspaces.mkdir()
    for name in ("..", ".", "/a", "a/b", "../outside", ".hidden", "", "a\x00", "ä"):
        answer = await http.post(
            "/api/workflows", json={"task": "x", "workspace": name}
        )
        assert answer.status_code == 422, name
    assert list(workspaces.iterdir()) == []
    assert list(outside.iterdir()) == []


@pytest.mark.docker
@pytest.mark.usefixtures("no_leftovers")
async def test_a_folder_or_link_that_is_there_already_is_not_worked_in(
    farm, http, tmp_path, sandbox_image
):
    workspaces = farm.settings.home / "workspaces"
    (workspaces / "taken").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (workspaces / "link").symlink_to(tmp_path / "outside")
    for name in ("taken", "link"):
        answer = await http.post(
            "/api/workflows", json={"task": "x", "workspace": name}
        )
        assert answer.status_code == 409
        assert name in answer.json()["detail"]
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"task": " "},
        {"task": "x" * 20_001},
        {"task": "x", "rounds": 11},
        {"task": "x", "rounds": -1},
        {"task": "x", "path": "/etc"},
        {"task": "\ud800"},
        {"task": "x", "\ud800": 1},
        [],
    ],
)
async def test_a_task_that_makes_no_sense_is_refused(http, wanted):
    body = json.dumps(wanted).encode()
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/api/workflows", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("body")


async def test_an_unknown_model_or_no_sandbox_is_told_before_anything_begins(
    settings, cards, serve, tmp_path
):
    nowhere = {
        "docker_host": f"unix://{tmp_path}/no-engine.sock",
        "sandbox": SandboxSettings(backend="docker"),
    }
    app = create_app(settings.model_copy(update=nowhere), gpus=cards)
    async with serve(app) as served:
        http = served.client()
        answer = await http.post("/api/workflows", json={"task": "x", "model": "m"})
        assert answer.status_code == 409
        assert "stub" in answer.json()["remedy"]
        answer = await http.post("/api/workflows", json={"task": "x"})
        assert answer.status_code == 409
        assert answer.json()["remedy"]
    assert not (settings.home / "workspaces").exists()
