"""The public names are a promise; changing this file is changing the promise."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import agentfarm

SURFACE = {
    "agentfarm": [
        "AgentFarmError",
        "EventBus",
        "Runtime",
        "Settings",
        "__version__",
        "load_settings",
        "open_runtime",
    ],
    "agentfarm.agents": [
        "Agent",
        "AgentResult",
        "Budget",
        "Caller",
        "Check",
        "ContextInjector",
        "ContextPassage",
        "ExecutorAgent",
        "Finding",
        "Memory",
        "Plan",
        "PlanResult",
        "PlannerAgent",
        "Review",
        "ReviewerAgent",
        "Step",
        "StepResult",
        "TokenCount",
        "ToolUse",
        "UXDecision",
        "UXDesignerAgent",
        "Verification",
        "VerifierAgent",
        "Workflow",
        "WorkflowResult",
        "WorkflowStream",
        "ask_peer_tool",
        "context_block",
        "needs_ux",
        "run_agent",
    ],
    "agentfarm.cli": ["main"],
    "agentfarm.config": [
        "EmbeddedSettings",
        "LimitSettings",
        "ModelSettings",
        "SamplerSettings",
        "SandboxSettings",
        "Settings",
        "TimeoutSettings",
        "WebSettings",
        "describe_problems",
        "load_settings",
    ],
    "agentfarm.containers": [
        "DEFAULT_URL",
        "Engine",
        "EngineInfo",
        "Owned",
        "Owner",
        "Reaped",
        "Weakness",
        "labels",
        "mentions",
        "owned",
        "reap",
        "weaknesses",
    ],
    "agentfarm.errors": [
        "AccessDenied",
        "AgentFarmError",
        "ConfigError",
        "ContextOverflow",
        "EvalError",
        "ModelNotFound",
        "NotebookError",
        "ProviderError",
        "ProviderTimeout",
        "RateLimited",
        "RetrievalError",
        "SandboxError",
        "SandboxTimeout",
        "SandboxUnavailable",
        "StoreError",
        "VaultError",
        "VaultExpired",
        "VaultLocked",
    ],
    "agentfarm.evals": [
        "EvalRun",
        "Progress",
        "RunEnergy",
        "RunSummary",
        "Score",
        "ScoreContext",
        "Scorer",
        "Solution",
        "SolveContext",
        "Solver",
        "Suite",
        "Task",
        "TaskCheck",
        "TaskResult",
        "WorkflowSolver",
        "choice",
        "energy_of_run",
        "exact",
        "human_eval",
        "includes",
        "json_schema",
        "load_run",
        "load_suite",
        "mbpp",
        "numeric",
        "pass_at_k",
        "regex",
        "requests_frame",
        "run",
        "run_summaries",
        "run_sync",
        "runs_frame",
        "samples_frame",
        "suite_names",
    ],
    "agentfarm.events": [
        "BusMetrics",
        "Event",
        "EventBus",
        "EventType",
        "RequestRecord",
        "Subscription",
        "SubscriptionMetrics",
    ],
    "agentfarm.llm": [
        "BreakerPolicy",
        "CallContext",
        "ChatChunk",
        "ChatRequest",
        "ChatResponse",
        "ChatStream",
        "EmbeddedProvider",
        "EmbeddedStatus",
        "Health",
        "LLMRouter",
        "Message",
        "ModelInfo",
        "ModelProgress",
        "ModelStatus",
        "OllamaProvider",
        "OpenAIProvider",
        "Provider",
        "PullProgress",
        "RecordingProvider",
        "RegisteredModel",
        "ReplayProvider",
        "RetryPolicy",
        "Role",
        "RouterStatus",
        "ServerTiming",
        "TaskType",
        "Timing",
        "ToolCall",
        "ToolCallDelta",
        "ToolSpec",
        "Usage",
        "add_model",
        "build_router",
        "embedded_down",
        "embedded_status",
        "embedded_up",
        "fetch_embedded_model",
        "find_embedded_model",
        "remove_model",
        "system",
        "user",
    ],
    "agentfarm.llm.providers": [
        "EmbeddedProvider",
        "OllamaProvider",
        "OpenAIProvider",
        "PullProgress",
        "RecordingProvider",
        "ReplayProvider",
    ],
    "agentfarm.llm.testing": [
        "Answer",
        "FakeCall",
        "FakeProvider",
        "Fault",
        "Reply",
        "SentPiece",
        "StubRequest",
        "StubServer",
    ],
    "agentfarm.monitoring": [
        "GPUAbilities",
        "GPUCapabilities",
        "GPUMonitor",
        "GPUReading",
        "GPUSnapshot",
        "HeatLimits",
        "LifetimeTotals",
        "PerformanceSnapshot",
        "PerformanceTracker",
        "RequestEnergy",
        "RequestStats",
        "Sampler",
        "SnapshotSource",
        "energy_by_request",
        "gpu_samples_frame",
        "host_samples_frame",
    ],
    "agentfarm.notebook": ["Report", "execute_notebook", "execute_notebook_sync"],
    "agentfarm.notebook.figures": [
        "latency_histogram",
        "score_by_run",
        "score_by_task",
        "tokens_per_agent",
        "tokens_per_second_over_time",
        "ttft",
    ],
    "agentfarm.notebook.panels": ["Download", "WorkflowPanel", "download"],
    "agentfarm.rag": [
        "Comparison",
        "GoldDocument",
        "GoldSpan",
        "Hit",
        "Interval",
        "Judgements",
        "Question",
        "QuestionScores",
        "RetrievalReport",
        "Retriever",
        "SpanScores",
        "bootstrap_interval",
        "document_scores",
        "evaluate_retrieval",
        "load_beir",
        "load_judgements",
        "load_span_questions",
        "load_trec",
        "permutation_test",
        "save_beir",
        "save_judgements",
        "save_trec",
        "span_scores",
        "spans_of",
    ],
    "agentfarm.runtime": ["Runtime", "open_runtime"],
    "agentfarm.store": [
        "GPUSampleRecord",
        "HostSampleRecord",
        "MemoryRecord",
        "RunRecord",
        "RunStatus",
        "SampleRecord",
        "SampleStatus",
        "SampleTally",
        "Store",
        "WorkflowRecord",
        "WorkflowStatus",
        "WorkflowStepRecord",
        "WorkflowStepStatus",
        "new_run_id",
        "stamped",
    ],
    "agentfarm.tools": [
        "Tool",
        "ToolRegistry",
        "ToolResult",
        "file_tools",
        "sandbox_tools",
    ],
    "agentfarm.tools.sandbox": [
        "SANDBOX_IMAGE",
        "BubblewrapSandbox",
        "BuiltImage",
        "DockerSandbox",
        "ImageState",
        "Limits",
        "Sandbox",
        "SandboxFile",
        "SandboxResult",
        "build_image",
        "check_image",
        "limits_of",
        "open_sandbox",
        "save",
        "wanted_backend",
    ],
    "agentfarm.web": ["Started", "Tokens", "create_app", "serve"],
    "agentfarm.web.hardware": ["router"],
    "agentfarm.web.live": ["router"],
    "agentfarm.web.server": ["create_app"],
    "agentfarm.web.workflows": ["WorkflowRunner", "router"],
}


def public_modules() -> list[str]:
    """Every module whose path has no underscore; a built-in suite goes by its name."""
    found = ["agentfarm"]
    for module in pkgutil.walk_packages(agentfarm.__path__, "agentfarm."):
        parts = module.name.split(".")
        private = any(part.startswith("_") for part in parts)
        if not private and "suites" not in parts:
            found.append(module.name)
    return sorted(found)


def test_no_public_module_is_added_or_lost():
    assert public_modules() == sorted(SURFACE)


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_each_module_exports_exactly_these_names(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == SURFACE[name]
    for attribute in SURFACE[name]:
        assert hasattr(module, attribute)


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_every_public_name_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for attribute in SURFACE[name]:
        value = getattr(module, attribute)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{attribute}"


def test_only_the_settings_read_the_environment():
    root = Path(agentfarm.__file__).parent
    readers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }
    # The supervisor runs inside the sandbox: the environment there is the image's.
    assert readers <= {"config.py", "tools/sandbox/_supervisor.py"}
