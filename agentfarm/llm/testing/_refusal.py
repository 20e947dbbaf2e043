"""HTTP errors in the words of real servers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from agentfarm.llm.testing._script import Fault
from agentfarm.llm.testing._wire import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentfarm.llm.testing._script import Reply, WireName

__all__ = ["OVERFLOW_TOKENS", "Refusal", "error_body", "refuse"]

OVERFLOW_TOKENS = 9031
"""Prompt tokens that a context overflow reports."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an HTTP error."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Words:
    """Status and text; `text` and `more` may hold the names in `refuse`'s facts."""

    status: int
    text: str
    kind: str = "invalid_request_error"
    more: tuple[tuple[str, str], ...] = ()


_LIMITED = _Words(429, "Too many requests", "rate_limit_error")

_OPENAI = {
    Fault.RATE_LIMITED: _LIMITED,
    Fault.RATE_LIMITED_UNTIL: _LIMITED,
    Fault.OVERLOADED: _Words(503, "Loading model", "unavailable_error"),
    Fault.MODEL_NOT_FOUND: _Words(
        404, "The model `{model}` does not exist", more=(("code", "model_not_found"),)
    ),
    Fault.UNAUTHORIZED: _Words(
        401,
        "Incorrect API key provided: {key}.",
        more=(("code", "invalid_api_key"),),
    ),
    Fault.CONTEXT_OVERFLOW: _Words(
        400,
        "request ({n_prompt} tokens) exceeds the available context size "
        "({n_ctx} tokens), try increasing it",
        "exceed_context_size_error",
        (("n_prompt_tokens", "{n_prompt}"), ("n_ctx", "{n_ctx}")),
    ),
    Fault.CONTEXT_OVERFLOW_OPENAI: _Words(
        400,
        "This model's maximum context length is {n_ctx} tokens. However, your "
        "messages resulted in {n_prompt} tokens. Please reduce the length of the "
        "messages.",
        more=(("param", "messages"), ("code", "context_length_exceeded")),
    ),
}

_OLLAMA = {
    Fault.RATE_LIMITED: _LIMITED,
    Fault.RATE_LIMITED_UNTIL: _LIMITED,
    Fault.OVERLOADED: _Words(
        503,
        "server busy, please try again.  maximum pending requests exceeded",
    ),
    Fault.MODEL_NOT_FOUND: _Words(404, "model '{model}' not found"),
    Fault.UNAUTHORIZED: _Words(401, "unauthorized: {key}"),
    Fault.CONTEXT_OVERFLOW: _Words(400, "the input length exceeds the context length"),
}

_PROXY_PAGE = b"<html><title>502 Bad Gateway</title><h1>502 Bad Gateway</h1></html>\n"


def refuse(reply: Reply, wire: WireName, facts: Mapping[str, Any]) -> Refusal | None:
    """The HTTP error that a reply's fault is, or None.

    Args:
        reply: With its fault.
        wire: Whose words to use.
        facts: ``model``, ``key``, ``n_prompt`` and ``n_ctx``.
    """
    fault = reply.fault
    if fault is Fault.BAD_GATEWAY:
        return Refusal(502, _PROXY_PAGE, {"Content-Type": "text/html"})
    words = (
        None if fault is None else (_OPENAI if wire == "openai" else _OLLAMA).get(fault)
    )
    if words is None:
        return None
    more = {name: _number(text.format(**facts)) for name, text in words.more}
    body = error_body(wire, words.status, words.text.format(**facts), words.kind, more)
    return Refusal(words.status, body, _retry_after(reply))


def error_body(
    wire: WireName,
    status: int,
    message: str,
    kind: str,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """An error as a body: an object, or Ollama's bare text."""
    if wire == "ollama":
        return to_json({"error": message})
    error = {"code": status, "message": message, "type": kind, **(more or {})}
    return to_json({"error": error})


def _retry_after(reply: Reply) -> dict[str, str]:
    delay_s = reply.retry_after_s
    if reply.fault is Fault.RATE_LIMITED_UNTIL:
        until = datetime.now(UTC) + timedelta(seconds=delay_s or 1.0)
        return {"Retry-After": format_datetime(until, usegmt=True)}
    return {} if delay_s is None else {"Retry-After": f"{delay_s:g}"}


def _number(text: str) -> str | int:
    return int(text) if text.isdigit() else text
