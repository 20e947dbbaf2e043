"""What a user sees when the model's server fails while agents are at work.

Every workflow here goes over a real connection to a stub server that injects the
fault, and through the real sandbox. Cases that begin at a later stage take up copies
of one workflow's finished stages, as a resumed one does.
"""

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import anyio
import pytest

from agentfarm.agents import Memory, Workflow, WorkflowResult
from agentfarm.config import TimeoutSettings
from agentfarm.errors import (
    ContextOverflow,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)
from agentfarm.events import EventBus, EventType
from agentfarm.llm import LLMRouter, ModelInfo, RegisteredModel, RetryPolicy, ToolCall
from agentfarm.llm.providers import OpenAIProvider
from agentfarm.llm.testing import Fault, Reply, StubServer
from agentfarm.store import Store, WorkflowRecord, WorkflowStepRecord
from agentfarm.tools.sandbox import DockerSandbox

pytestmark = pytest.mark.docker

TASK = "Write a calculator."
GOOD = "def add(a, b):\n    return a + b\n"
BROKEN = "def add(a, b)\n    return a + b\n"
PLAN = {
    "summary": "Write it.",
    "interface": True,
    "steps": [{"id": "a", "title": "Write calc.py", "detail": "", "depends_on": []}],
}
APPROVED = {"verdict": "approve", "findings": [], "summary": "Fine."}
STAGES = ["plan", "ux", "step:a", "verify:1", "fix:1", "verify:2", "review:2"]
ASKED = ["plan", "ux", "step:a", "fix:1", "review:2"]
# The same where the executor's first file is fine.
UNMENDED = ["plan", "ux", "step:a", "verify:1", "review:1"]
SERVED = ModelInfo(name="stub", capabilities=frozenset({"tools"}), loaded=True)
RETRY = RetryPolicy(rounds=2, base_s=0.01, max_retry_after_s=5.0)
PATIENT = TimeoutSettings(first_token_s=30.0, inter_token_s=30.0)


def calls(name, arguments=None, *, raw=None, **fields):
    raw = json.dumps(arguments) if raw is None else raw
    call = ToolCall(id="1", name=name, arguments=arguments, raw_arguments=raw)
    return Reply("", tool_calls=(call,), **fields)


def writes(content, **fields):
    return calls("write_file", {"path": "calc.py", "content": content}, **fields)


def stage_of(request):
    """Which stage asks, by the system prompt and the task."""
    system, task = (message["content"] for message in request.body["messages"][:2])
    who = system.removeprefix("You are ").split(".")[0]
    if who == "the executor" and "Mend what" in task:
        return "fix"
    return {
        "the planner": "plan",
        "the UX designer": "ux",
        "the executor": "step",
        "the reviewer": "review",
        "a colleague whom another agent asks for a second opinion": "peer",
    }[who]


@dataclass
class Model:
    """Plays every role; `faults` holds what goes before the right replies.

    A stage is named by the part of its key before the colon.
    """

    faults: Mapping[str, Iterator[Reply | str]] = field(default_factory=dict)
    breaks: bool = False
    plan: object = field(default_factory=lambda: PLAN)
    asked: list[str] = field(default_factory=list)

    def __call__(self, request):
        stage = stage_of(request)
        self.asked.append(stage)
        wrong = next(self.faults.get(stage, iter(())), None)
        return self._right(stage, request) if wrong is None else wrong

    def _right(self, stage, request):
        if stage in ("step", "fix"):
            if request.body["messages"][-1]["role"] == "tool":
                return "It is written."
            return writes(BROKEN if self.breaks and stage == "step" else GOOD)
        return {
            "plan": json.dumps(self.plan),
            "ux": "Big buttons.",
            "review": json.dumps(APPROVED),
        }[stage]


def persists(stage, fault):
    """A model whose server goes wrong in one stage, however often it is asked."""
    return Model({stage.split(":")[0]: repeat(fault)})


@dataclass(kw_only=True)
class Attempt:
    """What came of one attempt, and what the Store then held."""

    result: WorkflowResult
    bus: EventBus
    url: str
    record: WorkflowRecord
    steps: list[WorkflowStepRecord]

    @property
    def kept(self):
        return [step.key for step in self.steps]

    def keys(self, kind):
        return [event.data["key"] for event in self.bus.history(kind)]

    def notices(self):
        messages = self.bus.history(EventType.AGENT_MESSAGE)
        return [event.data["notice"] for event in messages if "notice" in event.data]


@dataclass(kw_only=True)
class Farm:
    """A folder and a Store, and a workflow on them as often as one likes."""

    home: Path
    sandbox: DockerSandbox
    store: Store

    @property
    def work(self):
        return self.home / "work"

    async def run(self, model, task="", *, timeouts=PATIENT, retry=RETRY, **options):
        """Work with a server that `model` plays; with none at all if it is None."""
        bus, resume = options.pop("bus", EventBus()), options.pop("resume", None)
        async with StubServer(respond=model, models=[SERVED]) as stub:
            url = stub.url
            if model is None:
                await stub.aclose()
            registered = RegisteredModel(
                name="m",
                model="stub",
                provider=OpenAIProvider(url, timeouts=timeouts),
                capabilities=frozenset({"tools", "json_schema"}),
            )
            async with LLMRouter([registered], bus=bus, retry=retry) as router:
                workflow = Workflow(
                    router=router,
                    bus=bus,
                    sandbox=self.sandbox,
                    store=self.store,
                    workspace=self.work,
                    state=self.home / "state",
                    model="m",
                    **options,
                )
                result = await workflow.run(task, resume=resume)
            await stub.wait_until(lambda stub: stub.active == 0)
        steps = self.store.workflow_steps(result.run_id)
        record = self.store.workflow(result.run_id)
        return Attempt(result=result, bus=bus, url=url, record=record, steps=steps)

    def reach(self, past, stage):
        """Take up another workflow's records before `stage`, all of them if None."""
        steps = past.steps[: STAGES.index(stage) if stage else None]
        record = replace(past.record, status="failed", workspace=str(self.work))
        self.store.put_workflow(record)
        for step in steps:
            self.store.put_workflow_step(step)
        done = [step.key for step in steps]
        (self.home / "state" / record.run_id / "before").mkdir(parents=True)
        self.work.mkdir()
        if "step:a" in done:
            content = GOOD if "fix:1" in done else BROKEN
            (self.work / "calc.py").write_text(content)
        return record.run_id

    async def start(self, past, stage, model, **options):
        """Work from `stage` on: a new workflow, or one that got so far."""
        if stage == "plan":
            return await self.run(model, TASK, **options)
        run_id = self.reach(past, stage)
        return await self.run(model, resume=run_id, **options)


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def sandbox(engine, sandbox_image):
    async with DockerSandbox(engine=engine, image=sandbox_image, pool=0) as opened:
        yield opened


@pytest.fixture
def farm(tmp_path, sandbox, no_leftovers):
    with Store.open(f"sqlite:///{tmp_path}/farm.db") as store:
        yield Farm(home=tmp_path, sandbox=sandbox, store=store)


@pytest.fixture(scope="module")
async def past(tmp_path_factory, sandbox):
    """A workflow with a round of mending, whose every stage had to ask twice."""
    home = tmp_path_factory.mktemp("past")
    passing = {
        "plan": Reply("x", fault=Fault.RATE_LIMITED, retry_after_s=0.3),
        "ux": Reply("x", fault=Fault.BAD_GATEWAY),
        "step": Reply("x", fault=Fault.OVERLOADED),
        "fix": Reply("x", fault=Fault.OVERLOADED, retry_after_s=0.3),
        "review": Reply("x", fault=Fault.BAD_GATEWAY),
    }
    faults = {stage: iter([reply]) for stage, reply in passing.items()}
    model = Model(faults, breaks=True)
    with Store.open(f"sqlite:///{home}/farm.db") as store:
        return await Farm(home=home, sandbox=sandbox, store=store).run(model, TASK)


async def test_a_fault_that_passes_is_waited_for_in_every_stage(past):
    assert past.result.ok, past.result.summary
    assert past.keys(EventType.STEP_COMPLETED) == past.kept == STAGES
    assert past.keys(EventType.STEP_FAILED) == []
    retries = past.bus.history(EventType.LLM_RETRY)
    agents = [event.agent for event in retries]
    assert agents == ["planner", "ux_designer", "executor", "executor", "reviewer"]
    for limited in (retries[0], retries[3]):
        assert limited.data["error_type"] == "RateLimited"
        assert limited.data["wait_s"] >= 0.25


@dataclass(frozen=True, kw_only=True)
class Sees:
    """The error that a user gets: its class, and parts of message and remedy."""

    error: type[ProviderError] = ProviderError
    says: tuple[str, ...]
    remedy: tuple[str, ...]
    timeouts: TimeoutSettings = PATIENT
    delay_s: float | None = None


def too_slow(says, setting):
    limits = {"first_token_s": 30.0, "inter_token_s": 30.0, setting: 0.2}
    return Sees(
        error=ProviderTimeout,
        says=(f"{says} within 0.2 s",),
        remedy=(f"raise timeouts.{setting}",),
        timeouts=TimeoutSettings(**limits),
    )


LIMITED = Sees(
    error=RateLimited,
    says=("HTTP 429", "Too many requests"),
    remedy=("Wait", "lower the concurrency"),
    delay_s=600.0,
)
OVERFLOW = Sees(error=ContextOverflow, says=("HTTP 400",), remedy=("Shorten",))
NO_FIRST = too_slow("sent no first token", "first_token_s")
STOPPED = too_slow("stopped sending tokens", "inter_token_s")
BUSY = ("busy, starting or down", "try again")
CUT = Sees(says=("cut the answer off after 2 chunks",), remedy=("server's log",))
MALFORMED = Sees(says=("sent a malformed chunk", "never s"), remedy=("proxy",))
BROKEN_OFF = Sees(says=("broke off the answer", "HTTP 500"), remedy=("Try again",))
PROXY_PAGE = Sees(says=("HTTP 502", "502 Bad Gateway"), remedy=BUSY)
GONE = Sees(says=("Cannot connect to",), remedy=("Start the server",))
# None is a server that is not there.
SEEN_AT_EVERY_STAGE: dict[Fault | None, Sees] = {
    None: GONE,
    Fault.RATE_LIMITED: LIMITED,
    Fault.BAD_GATEWAY: PROXY_PAGE,
    Fault.CONTEXT_OVERFLOW: OVERFLOW,
    Fault.ERROR_MID_STREAM: BROKEN_OFF,
    Fault.STALL_MID_STREAM: STOPPED,
    Fault.RESET_MID_STREAM: CUT,
    Fault.MALFORMED_CHUNK: MALFORMED,
}
SEEN: dict[Fault | None, Sees] = {
    **SEEN_AT_EVERY_STAGE,
    Fault.RATE_LIMITED_UNTIL: LIMITED,
    Fault.OVERLOADED: Sees(says=("HTTP 503", "Loading model"), remedy=BUSY),
    Fault.MODEL_NOT_FOUND: Sees(
        error=ModelNotFound,
        says=("HTTP 404", "The model `stub` does not exist"),
        remedy=("The server has: stub.",),
    ),
    Fault.UNAUTHORIZED: Sees(
        says=("HTTP 401", "Incorrect API key"), remedy=("api_key_env",)
    ),
    Fault.CONTEXT_OVERFLOW_OPENAI: OVERFLOW,
    Fault.STALL_HEADERS: NO_FIRST,
    Fault.STALL_FIRST_TOKEN: NO_FIRST,
    Fault.CUT_BEFORE_HEADERS: Sees(
        says=("closed the connection before it answered",), remedy=("server's log",)
    ),
    Fault.CUT_MID_STREAM: CUT,
    Fault.END_EARLY: CUT,
}
# Awkward answers that are whole all the same.
AWKWARD = {Fault.UTF8_SPLIT, Fault.TOOL_ARGUMENTS_SPLIT, Fault.MISSING_USAGE}
CASES = [
    *((stage, fault) for stage in ASKED for fault in SEEN_AT_EVERY_STAGE),
    *(("review:2", fault) for fault in SEEN if fault not in SEEN_AT_EVERY_STAGE),
]


def scripted(stage, fault):
    """A model whose server goes wrong so at a stage; None if there is none."""
    reply = Reply("one two three", fault=fault, retry_after_s=SEEN[fault].delay_s)
    return persists(stage, reply) if fault else None


def check_failed(farm, attempt, stage, sees):
    """All that a user can see of a failure: result, events, Store and log."""
    result, error, bus = attempt.result, attempt.result.error, attempt.bus
    assert (result.status, result.ok) == ("failed", False)
    assert type(error) is sees.error
    for words in (attempt.url, *sees.says):
        assert words in error.message
    for words in sees.remedy:
        assert words in error.remedy
    assert result.summary == f"It failed: {error} What was finished is kept."
    assert result.to_dict()["error"] == str(error)
    (failed,) = bus.history(EventType.STEP_FAILED)
    assert (failed.data["key"], failed.data["error"]) == (stage, str(error))
    last = bus.history()[-1]
    assert last.type is EventType.WORKFLOW_FAILED
    assert (last.data["ok"], last.data["error"]) == (False, str(error))
    assert (attempt.record.status, attempt.record.error) == ("failed", str(error))
    assert attempt.kept == STAGES[: STAGES.index(stage)]
    log = farm.home / "state" / result.run_id / "events.jsonl"
    assert json.loads(log.read_text().splitlines()[-1])["type"] == "workflow_failed"


def check_completed(attempt, *, ok=True):
    """All stages took place, whatever came of it, and everybody is told so."""
    result, bus = attempt.result, attempt.bus
    assert (result.status, result.error) == ("completed", None)
    assert result.ok is ok, result.summary
    assert bus.history(EventType.STEP_FAILED) == []
    last = bus.history()[-1]
    assert last.type is EventType.WORKFLOW_COMPLETED
    assert (last.data["ok"], last.data["error"]) == (ok, None)
    record = attempt.record
    assert (record.status, record.error) == ("completed", None)
    assert record.summary == result.summary


def named(case):
    stage, fault = case
    return f"{stage}-{fault.name.lower() if fault else 'no_server'}"


@pytest.mark.parametrize(("stage", "fault"), CASES, ids=map(named, CASES))
async def test_a_fault_ends_it_with_cause_and_remedy(farm, past, stage, fault):
    sees, model = SEEN[fault], scripted(stage, fault)
    attempt = await farm.start(past, stage, model, timeouts=sees.timeouts)
    check_failed(farm, attempt, stage, sees)
    if stage != "review:2":
        return  # going on costs a verification, which a test below pays
    again = await farm.run(Model(), resume=attempt.result.run_id)
    check_completed(again)
    assert again.keys(EventType.STEP_STARTED) == ["review:2"]


def test_every_fault_has_a_case():
    possible = {fault for fault in Fault if "openai" in fault.wires}
    assert SEEN.keys() - {None} | AWKWARD == possible
    assert set(Fault) - possible == {Fault.SILENT_TRUNCATION}  # Ollama's own


@pytest.mark.parametrize("stage", ASKED)
async def test_it_may_fail_twice_and_then_does_what_is_left(farm, past, stage):
    first = await farm.start(past, stage, scripted(stage, Fault.BAD_GATEWAY))
    run_id = first.result.run_id
    second = await farm.run(None, resume=run_id)
    check_failed(farm, second, stage, GONE)
    third = await farm.run(Model(), resume=run_id)
    check_completed(third)
    assert third.result.run_id == run_id
    path = STAGES if stage in ("fix:1", "review:2") else UNMENDED
    assert third.keys(EventType.STEP_STARTED) == path[path.index(stage) :]
    assert third.result.written == ("calc.py",)
    assert (farm.work / "calc.py").read_text() == GOOD


async def test_a_failed_workflow_tells_what_it_had_found(farm, past):
    result = (await farm.start(past, "fix:1", None)).result
    assert [step.title for step in result.plan.steps] == ["Write calc.py"]
    assert not result.verification.ok
    assert (result.rounds, result.review) == (1, None)
    assert set(result.tokens) == {"planner", "ux_designer", "executor"}


NONSENSE = {
    "empty": "",
    "prose": "Sure! I would be happy to help you with that.",
    "only_thoughts": Reply("", reasoning=("Hm. ", "Hm.")),
    "control_characters": "\x00\x1b[2J\x07{\x00",
    "wrong_json": '[1, {"steps": {"id": null}}, "verdict"]',
    "truncated_json": Reply('{"summary": "Wri', finish_reason="length"),
    "error_page": "<html><h1>502 Bad Gateway</h1></html>",
    "malformed_call": calls("write_file", raw='{"path": "calc.py", "content": "de'),
    "unknown_tool": calls("rm_rf", {"path": "/"}),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_in_every_stage_ends_it_as_not_done(farm, said):
    model = Model({stage: repeat(said) for stage in ("plan", "ux", "step", "review")})
    attempt = await farm.run(model, "Write a web page.")
    check_completed(attempt, ok=False)
    result = attempt.result
    assert "No file was changed." in result.summary
    assert "there was nothing to review" in result.summary
    assert result.plan.is_fallback
    assert list(farm.work.iterdir()) == []
    assert attempt.kept == ["plan", "ux", "step:1", "verify:1", "review:1"]


async def test_nonsense_around_sound_work_does_not_undo_it(farm):
    nonsense = {"plan": "prose", "ux": "empty", "review": "truncated_json"}
    model = Model({stage: repeat(NONSENSE[said]) for stage, said in nonsense.items()})
    attempt = await farm.run(model, "Write a web page.")
    check_completed(attempt)
    result = attempt.result
    assert (result.plan.is_fallback, result.review.verdict) == (True, "none")
    assert result.written == ("calc.py",)


async def test_nonsense_where_work_should_be_mended_leaves_it_not_done(farm, past):
    model = persists("fix:1", NONSENSE["malformed_call"])
    attempt = await farm.start(past, "fix:1", model, max_rounds=1)
    check_completed(attempt, ok=False)
    assert (attempt.result.rounds, attempt.result.verification.ok) == (2, False)
    assert {step.key: step.status for step in attempt.steps}["fix:1"] == "failed"


async def test_nonsense_said_once_is_repaired(farm):
    once = {
        "plan": [NONSENSE["truncated_json"]],
        "ux": [NONSENSE["empty"]],
        "step": [NONSENSE["malformed_call"], writes(GOOD)],
        "review": [NONSENSE["error_page"]],
    }
    model = Model({stage: iter(replies) for stage, replies in once.items()})
    attempt = await farm.run(model, TASK)
    check_completed(attempt)
    assert not attempt.result.plan.is_fallback
    assert attempt.result.review.verdict == "approve"
    # A malformed call is shown to the model as that call's result instead.
    assert attempt.notices() == ["repair"] * 3
    assert model.asked == ["plan"] * 2 + ["ux"] * 2 + ["step"] * 3 + ["review"] * 2


async def test_an_awkward_answer_is_an_answer(farm):
    plan = {**PLAN, "interface": False, "summary": "Räkna zwölf 🎉."}
    content = f'"""Räkna zwölf 🎉."""\n\n{GOOD}'
    awkward = {
        "plan": Reply(json.dumps(plan, ensure_ascii=False), fault=Fault.UTF8_SPLIT),
        "step": writes(content, fault=Fault.TOOL_ARGUMENTS_SPLIT),
        "review": Reply(json.dumps(APPROVED), fault=Fault.MISSING_USAGE),
    }
    model = Model({stage: iter([reply]) for stage, reply in awkward.items()})
    attempt = await farm.run(model, TASK)
    check_completed(attempt)
    assert attempt.result.summary.startswith("Räkna zwölf 🎉.")
    assert (farm.work / "calc.py").read_text() == content
    tokens = attempt.result.tokens
    assert [tokens[a].estimated for a in ("planner", "reviewer")] == [False, True]


async def test_a_fault_in_the_middle_of_a_step_keeps_its_files(farm, past):
    reset = Reply("one two three", fault=Fault.RESET_MID_STREAM)
    model = Model({"step": iter([writes(BROKEN), reset])})
    first = await farm.start(past, "step:a", model)
    check_failed(farm, first, "step:a", CUT)
    assert (farm.work / "calc.py").read_text() == BROKEN
    again = await farm.run(Model(), resume=first.result.run_id)
    check_completed(again)
    assert "+++ b/calc.py" in again.result.diff


async def test_a_full_context_in_the_middle_of_a_step_is_made_room_in(farm, past):
    full = Reply("x", fault=Fault.CONTEXT_OVERFLOW)
    reads = calls("read_file", {"path": "notes.txt"})
    model = Model({"step": iter([reads, full, writes(GOOD)])})
    run_id = farm.reach(past, "step:a")
    (farm.work / "notes.txt").write_text("Add, do not subtract.\n" * 500)
    attempt = await farm.run(model, resume=run_id)
    check_completed(attempt)
    assert attempt.notices() == ["shrunk"]


async def test_a_peer_that_cannot_be_asked_fails_the_step(farm, past):
    question = calls("ask_peer", {"kind": "review", "question": "Is it good?"})
    page = Reply("x", fault=Fault.BAD_GATEWAY)
    model = Model({"step": iter([question]), "peer": repeat(page)})
    attempt = await farm.start(past, "step:a", model)
    check_failed(farm, attempt, "step:a", PROXY_PAGE)
    assert [e.agent for e in attempt.bus.history(EventType.LLM_ERROR)] == ["peer"]


async def test_a_fault_in_one_step_stops_the_code_of_another(farm):
    steps = [{"id": name, "title": f"Do {name}"} for name in ("sleep", "fail")]
    model = Model(plan={"summary": "Two.", "interface": False, "steps": steps})
    bus = EventBus()

    def respond(request):
        if stage_of(request) != "step":
            return model(request)
        if "Do sleep" in request.body["messages"][1]["content"]:
            return calls("run_python", {"code": "import time; time.sleep(600)"})
        if bus.history(EventType.AGENT_TOOL_CALL):
            return Reply("x", fault=Fault.UNAUTHORIZED)
        return Reply("x", fault=Fault.RATE_LIMITED, retry_after_s=0.05)

    attempt = await farm.run(respond, TASK, bus=bus, retry=RetryPolicy(rounds=1000))
    assert attempt.result.status == "failed"
    assert "Incorrect API key" in attempt.result.error.message
    assert attempt.keys(EventType.STEP_STARTED) == ["plan", "step:sleep", "step:fail"]
    assert attempt.keys(EventType.STEP_FAILED) == ["step:fail"]
    (code,) = bus.history(EventType.AGENT_TOOL_RESULT)
    assert code.data["data"]["error"] == "interrupted"
    assert attempt.kept == ["plan"]


KILLED_AT_ITS_END = """
import os, signal, sys
from functools import partial
from pathlib import Path
import anyio
from agentfarm.agents import Memory, Workflow
from agentfarm.llm import LLMRouter
from agentfarm.store import Store
from agentfarm.tools.sandbox import DockerSandbox

home, run_id, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

class LastWords(Memory):
    async def add(self, *arguments, **named):
        if when == "after":
            await super().add(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

store = Store.open(f"sqlite:///{home}/farm.db")
workflow = Workflow(
    router=LLMRouter([]), sandbox=DockerSandbox(pool=0), store=store,
    workspace=home / "work", state=home / "state",
    memory=LastWords(store, home / "work"),
)
anyio.run(partial(workflow.run, resume=run_id))
"""


@pytest.mark.parametrize(("when", "remembered"), [("before", 0), ("after", 1)])
async def test_killed_at_its_very_end_it_completes_and_remembers_once(
    farm, past, when, remembered
):
    run_id = farm.reach(past, None)
    command = [sys.executable, "-c", KILLED_AT_ITS_END, str(farm.home), run_id, when]
    killed = await anyio.run_process(command, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert farm.store.workflow(run_id).status == "interrupted"
    memory = Memory(farm.store, farm.work)
    assert len(await memory.search(TASK)) == remembered

    model = Model()
    attempt = await farm.run(model, resume=run_id, memory=memory)
    check_completed(attempt)
    assert attempt.keys(EventType.STEP_STARTED) == model.asked == []
    (kept,) = await memory.search(TASK)
    assert attempt.result.summary in kept.text


async def test_a_failed_workflow_remembers_nothing_until_it_is_done(farm, past):
    memory = Memory(farm.store, farm.work)
    first = await farm.start(past, "review:2", None, memory=memory)
    assert memory.recent() == []
    await farm.run(Model(), resume=first.result.run_id, memory=memory)
    (kept,) = memory.recent()
    assert (kept.kind, kept.memory_id) == ("workflow", first.result.run_id)
