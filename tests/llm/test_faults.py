"""What a user sees of every fault that the stub server can inject.

Each case goes through the real provider over a real connection. A fault without
a case in one of the two tables fails the last test.
"""

from dataclasses import dataclass, replace

import pytest

from agentfarm.config import TimeoutSettings
from agentfarm.errors import (
    ContextOverflow,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)
from agentfarm.llm._messages import ToolCall, Usage, user
from agentfarm.llm.providers import OllamaProvider, OpenAIProvider
from agentfarm.llm.testing import Fault, Reply

KEY = "sk-very-secret-1234"
BOTH = ("ollama", "openai")
CALL = ToolCall(
    id="c1", name="say", arguments={"a": "zwölf 🎉"}, raw_arguments='{"a":"zwölf 🎉"}'
)
REPLY = Reply("one zwö 🎉 four", retry_after_s=None)
FIRST_TWO = "one zwö "


@dataclass(frozen=True)
class Sees:
    """The error that a user gets.

    `says` and `remedy` are parts of the message and of the remedy; `also` are
    further attributes of the error.
    """

    error: type[ProviderError]
    says: tuple[str, ...]
    remedy: tuple[str, ...]
    status: int | None = None
    retryable: bool = True
    partial: str = ""
    also: tuple[tuple[str, object], ...] = ()
    retry_after_s: float | None = None


def timeout(phase: str, says: str, setting: str, partial: str = "") -> Sees:
    return Sees(
        ProviderTimeout,
        (says, "within 0.2 s"),
        ("raise timeouts." + setting,),
        partial=partial,
        also=(("phase", phase), ("timeout_s", 0.2)),
    )


LIMITED = Sees(
    RateLimited,
    ("refused the request", "HTTP 429", "Too many requests"),
    ("Wait", "lower the concurrency"),
    429,
    retry_after_s=3.0,
)
BUSY = ("busy, starting or down", "try again")
LOG = ("server's log",)
NO_FIRST = timeout("first token", "sent no first token", "first_token_s")
STOPPED = timeout("inter-token", "stopped sending tokens", "inter_token_s", FIRST_TWO)
CUT = Sees(
    ProviderError,
    ("cut the answer off after 2 chunks",),
    (*LOG, "partial text is kept"),
    partial=FIRST_TWO,
)
MALFORMED = Sees(
    ProviderError,
    ("sent a malformed chunk", '"content":"never s'),
    (*LOG, "proxy"),
    partial=FIRST_TWO,
)
OVERFLOW = Sees(
    ContextOverflow,
    ("HTTP 400", "request (9031 tokens) exceeds the available context size (2048"),
    ("Shorten the prompt", "longer context"),
    400,
    retryable=False,
    also=(("prompt_tokens", 9031), ("context_length", 2048)),
)

FAILURES: dict[tuple[Fault, str], Sees] = {
    **dict.fromkeys([(Fault.RATE_LIMITED, wire) for wire in BOTH], LIMITED),
    **dict.fromkeys([(Fault.RATE_LIMITED_UNTIL, wire) for wire in BOTH], LIMITED),
    (Fault.OVERLOADED, "openai"): Sees(
        ProviderError, ("HTTP 503", "Loading model"), BUSY, 503
    ),
    (Fault.OVERLOADED, "ollama"): Sees(
        ProviderError, ("HTTP 503", "server busy", "maximum pending"), BUSY, 503
    ),
    **dict.fromkeys(
        [(Fault.BAD_GATEWAY, wire) for wire in BOTH],
        Sees(ProviderError, ("HTTP 502", "502 Bad Gateway"), BUSY, 502),
    ),
    (Fault.MODEL_NOT_FOUND, "openai"): Sees(
        ModelNotFound,
        ("HTTP 404", "The model `absent` does not exist"),
        ("The server has: stub.",),
        404,
        retryable=False,
    ),
    (Fault.MODEL_NOT_FOUND, "ollama"): Sees(
        ModelNotFound,
        ("HTTP 404", "model 'absent' not found"),
        ("The server has: stub.", "ollama pull absent"),
        404,
        retryable=False,
    ),
    (Fault.UNAUTHORIZED, "openai"): Sees(
        ProviderError,
        ("HTTP 401", "Incorrect API key"),
        ("Check the API key.",),
        401,
        retryable=False,
    ),
    (Fault.UNAUTHORIZED, "ollama"): Sees(
        ProviderError,
        ("HTTP 401", "unauthorized"),
        ("user and password into its URL",),
        401,
        retryable=False,
    ),
    (Fault.CONTEXT_OVERFLOW, "openai"): OVERFLOW,
    (Fault.CONTEXT_OVERFLOW, "ollama"): replace(
        OVERFLOW,
        says=("HTTP 400", "input length exceeds the context length"),
        also=(),
    ),
    (Fault.CONTEXT_OVERFLOW_OPENAI, "openai"): replace(
        OVERFLOW, says=("HTTP 400", "maximum context length is 2048 tokens")
    ),
    (Fault.ERROR_MID_STREAM, "openai"): Sees(
        ProviderError,
        ("broke off the answer", "HTTP 500", "does not match the format"),
        ("Try again", *LOG),
        500,
        partial=FIRST_TWO,
    ),
    (Fault.ERROR_MID_STREAM, "ollama"): Sees(
        ProviderError,
        ("broke off the answer", "does not match the format"),
        ("Try again", *LOG),
        partial=FIRST_TWO,
    ),
    **dict.fromkeys([(Fault.STALL_HEADERS, wire) for wire in BOTH], NO_FIRST),
    **dict.fromkeys([(Fault.STALL_FIRST_TOKEN, wire) for wire in BOTH], NO_FIRST),
    **dict.fromkeys([(Fault.STALL_MID_STREAM, wire) for wire in BOTH], STOPPED),
    **dict.fromkeys(
        [(Fault.CUT_BEFORE_HEADERS, wire) for wire in BOTH],
        Sees(ProviderError, ("closed the connection before it answered",), LOG),
    ),
    **dict.fromkeys([(Fault.CUT_MID_STREAM, wire) for wire in BOTH], CUT),
    **dict.fromkeys(
        [(Fault.RESET_MID_STREAM, wire) for wire in BOTH],
        replace(CUT, says=(*CUT.says, "Connection reset by peer")),
    ),
    **dict.fromkeys([(Fault.END_EARLY, wire) for wire in BOTH], CUT),
    **dict.fromkeys([(Fault.MALFORMED_CHUNK, wire) for wire in BOTH], MALFORMED),
}


def whole_text(heard):
    assert heard.text == heard.response.text == REPLY.text
    assert "�" not in heard.text


def whole_tool_call(heard):
    (call,) = heard.response.message.tool_calls
    assert (call.id, call.name) == ("c1", "say")
    assert call.arguments == CALL.arguments
    assert heard.response.finish_reason == "tool_calls"


def unknown_counts(heard):
    whole_text(heard)
    assert heard.response.usage == Usage()
    assert heard.response.output_tokens_per_s is None


def named_truncation(heard):
    whole_text(heard)
    assert heard.response.context_truncated
    (warning,) = heard.response.warnings
    for words in ("kept 1026", "context of 2048", "beginning", "Raise context_length"):
        assert words in warning


TRAPS = {
    **dict.fromkeys([(Fault.UTF8_SPLIT, wire) for wire in BOTH], whole_text),
    **dict.fromkeys(
        [(Fault.TOOL_ARGUMENTS_SPLIT, wire) for wire in BOTH], whole_tool_call
    ),
    **dict.fromkeys([(Fault.MISSING_USAGE, wire) for wire in BOTH], unknown_counts),
    (Fault.SILENT_TRUNCATION, "ollama"): named_truncation,
}


def names(cases):
    return [f"{fault.name.lower()}-{wire}" for fault, wire in cases]


@pytest.fixture
async def provider_for(stub):
    """`provider_for("openai")` talks to the stub."""
    providers = {
        "ollama": OllamaProvider(stub.url),
        "openai": OpenAIProvider(stub.url, api_key=KEY),
    }
    yield providers.__getitem__
    for provider in providers.values():
        await provider.aclose()


@pytest.mark.parametrize(
    ("fault", "wire", "sees"),
    [(*case, sees) for case, sees in FAILURES.items()],
    ids=names(FAILURES),
)
async def test_failure(stub, provider_for, ask, hear, fault, wire, sees):
    retry_after_s = sees.retry_after_s
    stub.queue.append(replace(REPLY, fault=fault, retry_after_s=retry_after_s))
    request = replace(
        ask,
        model="absent" if fault is Fault.MODEL_NOT_FOUND else "stub",
        timeouts=TimeoutSettings(
            first_token_s=0.2 if sees is NO_FIRST else 10.0,
            inter_token_s=0.2 if sees is STOPPED else 10.0,
        ),
    )
    provider = provider_for(wire)
    with pytest.raises(sees.error) as caught:
        await hear(provider, request)
    error = caught.value
    assert type(error) is sees.error
    for words in (stub.url, *sees.says):
        assert words in error.message
    for words in sees.remedy:
        assert words in error.remedy
    assert error.partial_text == sees.partial
    assert error.status_code == sees.status
    assert error.retryable is sees.retryable
    assert (error.provider, error.host) == (wire, stub.url)
    assert error.model == request.model
    assert KEY not in f"{error} {error!r} {vars(error)}"
    for name, value in sees.also:
        assert getattr(error, name) == value
    if retry_after_s is not None:
        # A date has no fractions of a second.
        slack_s = 1.5 if fault is Fault.RATE_LIMITED_UNTIL else 0.0
        assert retry_after_s - slack_s <= error.retry_after_s <= retry_after_s
    # Nothing is left behind: no request, and the provider can be used again.
    await stub.chats[0].wait_over()
    stub.queue.append("fine")
    assert (await hear(provider, ask)).text == "fine"


@pytest.mark.parametrize(
    ("fault", "wire", "check"),
    [(*case, check) for case, check in TRAPS.items()],
    ids=names(TRAPS),
)
async def test_trap(stub, provider_for, ask, hear, fault, wire, check):
    calls = (CALL,) if fault is Fault.TOOL_ARGUMENTS_SPLIT else ()
    stub.queue.append(replace(REPLY, fault=fault, tool_calls=calls))
    # About 2,500 tokens for a context of 2048, where the stub truncates.
    long = "word " * 2_000 if fault is Fault.SILENT_TRUNCATION else "word"
    request = replace(ask, messages=(user(long),), context_length=2048)
    check(await hear(provider_for(wire), request))


async def test_overload_that_names_a_time_is_a_rate_limit(stub, provider_for, ask):
    for wire in BOTH:
        stub.queue.append(Reply("x", fault=Fault.OVERLOADED, retry_after_s=0.5))
        with pytest.raises(RateLimited) as caught:
            await anext(provider_for(wire).stream(ask))
        assert (caught.value.status_code, caught.value.retry_after_s) == (503, 0.5)


async def test_no_time_named_is_none(stub, provider_for, ask):
    for wire in BOTH:
        stub.queue.append(Reply("x", fault=Fault.RATE_LIMITED))
        with pytest.raises(RateLimited) as caught:
            await anext(provider_for(wire).stream(ask))
        assert caught.value.retry_after_s is None


async def drain(stream, chunks):
    async for chunk in stream:
        chunks.append(chunk)


@pytest.mark.parametrize("wire", BOTH)
@pytest.mark.parametrize(
    "fault",
    [Fault.ERROR_MID_STREAM, Fault.CUT_MID_STREAM, Fault.STALL_MID_STREAM],
    ids=lambda fault: fault.name.lower(),
)
async def test_chunks_arrive_before_the_failure(stub, provider_for, ask, fault, wire):
    stub.queue.append(replace(REPLY, fault=fault, fault_after=3, reasoning=("hm",)))
    limits = TimeoutSettings(inter_token_s=0.2)
    stream = provider_for(wire).stream(replace(ask, timeouts=limits))
    chunks = []
    with pytest.raises(ProviderError) as caught:
        await drain(stream, chunks)
    assert [chunk.reasoning for chunk in chunks] == ["hm", "", ""]
    assert [chunk.text for chunk in chunks] == ["", "one ", "zwö "]
    assert caught.value.partial_text == FIRST_TWO


async def test_slow_but_steady_is_no_stall(stub, provider_for, ask, hear):
    for wire in BOTH:
        stub.queue.append(replace(REPLY, first_delay_s=0.45, gap_s=0.15))
        limits = TimeoutSettings(first_token_s=5.0, inter_token_s=0.4)
        heard = await hear(provider_for(wire), replace(ask, timeouts=limits))
        assert heard.text == REPLY.text


async def test_dead_server_says_how_to_start_it(stub, provider_for, ask):
    await stub.aclose()
    for wire, remedy in (("ollama", "ollama serve"), ("openai", "Start the server")):
        provider = provider_for(wire)
        with pytest.raises(ProviderError, match="Cannot connect to") as caught:
            await anext(provider.stream(ask))
        assert remedy in caught.value.remedy
        assert caught.value.retryable
        health = await provider.health()
        assert not health.ok
        assert remedy in health.detail


async def test_loading_server_is_not_healthy(stub, provider_for):
    stub.ready = False
    for wire in BOTH:
        health = await provider_for(wire).health()
        assert not health.ok
        assert "Loading model" in health.detail
    stub.ready = True
    for wire in BOTH:
        assert (await provider_for(wire).health()).ok


async def test_pull_that_fails_names_the_cause(stub, provider_for):
    reason = "pull model manifest: file does not exist"
    stub.pull_progress = [{"status": "pulling manifest"}, {"error": reason}]
    with pytest.raises(ProviderError, match=reason):
        _ = [step async for step in provider_for("ollama").pull("nix")]


async def test_pull_that_is_cut_off_can_go_on(stub, provider_for):
    stub.pull_progress = stub.pull_progress[:4]
    with pytest.raises(ProviderError, match="stopped the download of new") as caught:
        _ = [step async for step in provider_for("ollama").pull("new")]
    assert "goes on from there" in caught.value.remedy


def test_every_fault_has_a_case():
    possible = {(fault, wire) for fault in Fault for wire in fault.wires}
    assert set(FAILURES) | set(TRAPS) == possible
    assert not set(FAILURES) & set(TRAPS)
