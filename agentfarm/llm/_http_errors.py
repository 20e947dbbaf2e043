"""What an LLM server's refusal means: from status and body to the error tree."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agentfarm.errors import (
    ContextOverflow,
    ModelNotFound,
    ProviderError,
    ProviderTimeout,
    RateLimited,
)

if TYPE_CHECKING:
    from agentfarm.llm._messages import ModelInfo

_QUOTE_CHARS = 300
_NAMES_SHOWN = 10
_RETRYABLE = frozenset({408, 409, 425, 429, 499, 500, 502, 503, 504, 529})
_OVERFLOW_CODES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_OVERFLOW_TEXT = re.compile(
    r"exceed\w* .{0,40}context|context (length|size|window).{0,40}exceed"
    r"|maximum context length|prompt (is )?too long",
    re.IGNORECASE | re.DOTALL,
)
# The numbers in the words of vLLM and OpenAI, whose errors have no fields for them.
_CONTEXT_NUMBER = re.compile(
    r"(?:maximum context length|context (?:size|window|length))"
    r"(?: (?:is|of))? \(?(\d+)",
    re.IGNORECASE,
)
_PROMPT_NUMBER = re.compile(
    r"(?:request(?:ed)?|resulted in|contains|has|passed) (?:about |at least )?\(?(\d+)"
    r"(?: input| prompt)? tokens",
    re.IGNORECASE,
)
_ErrorT = TypeVar("_ErrorT", bound=ProviderError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Whom an error is about.

    Attributes:
        kind: Kind of provider.
        host: Base URL without credentials.
        start_remedy: How to start the server.
        key_remedy: How to give it a key.
        secrets: Texts that must not appear in a message, e.g. the API key.
    """

    kind: str
    host: str
    start_remedy: str
    key_remedy: str
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def error(
        self,
        cls: type[_ErrorT],
        message: str,
        *,
        model: str | None = None,
        remedy: str | None = None,
        status_code: int | None = None,
        retryable: bool = False,
        partial_text: str = "",
    ) -> _ErrorT:
        """An error of `cls` about this server, without its secrets."""
        for secret in self.secrets:
            message = message.replace(secret, "***")
        return cls(
            message,
            remedy=remedy,
            provider=self.kind,
            host=self.host,
            model=model,
            status_code=status_code,
            retryable=retryable,
            partial_text=partial_text,
        )


def shorten(text: str | bytes, limit: int = _QUOTE_CHARS) -> str:
    """One line of at most `limit` characters, to quote in a message."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def status_error(
    origin: Origin,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str | None = None,
) -> ProviderError:
    """The error for an answer that is not 2xx."""
    try:
        parsed: Any = msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        parsed = None
    if 300 <= status < 400:
        return origin.error(
            ProviderError,
            f"{origin.host} answered HTTP {status} and points to "
            f"{shorten(headers.get('location', 'nowhere'))}.",
            model=model,
            status_code=status,
            remedy="Register the address that it points to.",
        )
    return refusal(
        origin,
        shorten(body) if parsed is None else parsed,
        status=status,
        headers=headers,
        model=model,
    )


def refusal(
    origin: Origin,
    body: Any,
    *,
    status: int | None,
    headers: Mapping[str, str] | None = None,
    model: str | None = None,
    partial_text: str = "",
) -> ProviderError:
    """The error for an error object, whether a whole body or in mid-stream.

    Args:
        origin: The server.
        body: The decoded JSON, `{"error": …}` or its inside, or plain text.
        status: HTTP status; for an object in mid-stream the code in it, or None.
        headers: Of the answer, for Retry-After.
        model: The model asked for.
        partial_text: What had been streamed.
    """
    words = _Words.read(body)
    status = words.status if status is None else status
    said = f"{origin.host} " + (
        "broke off the answer" if partial_text else "refused the request"
    )
    said += f" (HTTP {status})" if status else ""
    said += f": {_sentence(words.text)}" if words.text else "."
    leaf, remedy = _leaf(origin, status, words, headers or {}, model)
    error = origin.error(
        leaf,
        said,
        model=model,
        remedy=remedy,
        status_code=status,
        retryable=_retryable(leaf, status, words),
        partial_text=partial_text,
    )
    if isinstance(error, RateLimited):
        error.retry_after_s = retry_after_s(headers or {})
    if isinstance(error, ContextOverflow):
        error.prompt_tokens = words.prompt_tokens
        error.context_length = words.context_length
    return error


def _leaf(
    origin: Origin,
    status: int | None,
    words: _Words,
    headers: Mapping[str, str],
    model: str | None,
) -> tuple[type[ProviderError], str | None]:
    """The class of the error, and its remedy."""
    if words.is_overflow(status):
        return ContextOverflow, (
            "Shorten the prompt, or serve the model with a longer context."
        )
    if words.is_unknown_model(status, model):
        return ModelNotFound, None
    if status in (401, 403):
        return ProviderError, origin.key_remedy
    if status == 429 or (status == 503 and retry_after_s(headers) is not None):
        return RateLimited, "Wait, or lower the concurrency."
    if status in (404, 405):
        return ProviderError, (
            f"Check the address: is this really a server of kind {origin.kind!r}?"
        )
    if status in (502, 503, 504):
        return ProviderError, "It is busy, starting or down: wait and try again."
    if status is None or status >= 500:
        return ProviderError, "Try again; if it goes on, look into the server's log."
    return ProviderError, None


def _retryable(leaf: type[ProviderError], status: int | None, words: _Words) -> bool:
    if leaf in (ContextOverflow, ModelNotFound) or words.code == "insufficient_quota":
        return False
    return status is None or status in _RETRYABLE


async def name_models(
    error: ModelNotFound, ask: Callable[[], Awaitable[Sequence[ModelInfo]]]
) -> ModelNotFound:
    """The same error, with the models that the server does have as its remedy."""
    try:
        names = [model.name for model in await ask()]
    except ProviderError:
        return error
    shown = ", ".join(names[:_NAMES_SHOWN]) or "none"
    more = len(names) - _NAMES_SHOWN
    has = f"The server has: {shown}" + (f" and {more} more." if more > 0 else ".")
    error.remedy = f"{has} {error.remedy}" if error.remedy else has
    return error


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait.

    Retry-After is a number of seconds or an HTTP date (RFC 9110, 10.2.3); some
    servers add retry-after-ms.
    """
    value = headers.get("retry-after-ms")
    try:
        if value is not None:
            return max(0.0, float(value) / 1000)
        value = headers.get("retry-after")
        return None if value is None else max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - time.time())
    except ValueError:
        return None


def timeout_error(
    origin: Origin,
    phase: str,
    limit_s: float,
    *,
    model: str | None = None,
    partial_text: str = "",
) -> ProviderTimeout:
    """The error for a limit that passed, with the setting that raises it."""
    did = {
        "connect": "did not accept the connection",
        "first token": "sent no first token",
        "inter-token": "stopped sending tokens",
        "total": "did not finish its answer",
    }[phase]
    setting = {"first token": "first_token_s", "inter-token": "inter_token_s"}.get(
        phase, f"{phase}_s"
    )
    error = origin.error(
        ProviderTimeout,
        f"{origin.host} {did} within {limit_s:g} s.",
        model=model,
        remedy=origin.start_remedy
        if phase == "connect"
        else f"If it needs longer, raise timeouts.{setting}.",
        retryable=True,
        partial_text=partial_text,
    )
    error.phase = phase
    error.timeout_s = limit_s
    return error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Words:
    """What an error body says, whichever of the known shapes it has."""

    text: str
    code: str = ""
    status: int | None = None
    prompt_tokens: int | None = None
    context_length: int | None = None

    @classmethod
    def read(cls, body: Any) -> _Words:
        if isinstance(body, Mapping) and "error" in body:
            body = body["error"]
        if not isinstance(body, Mapping):
            return cls(text="" if body is None else shorten(str(body)))
        text = str(body.get("message") or body.get("detail") or dict(body))
        code, kind = body.get("code"), body.get("type")
        return cls(
            text=shorten(text),
            code=next(
                (name for name in (code, kind) if isinstance(name, str) and name), ""
            )
            if kind not in _OVERFLOW_CODES
            else str(kind),
            status=code if isinstance(code, int) else None,
            prompt_tokens=_number(body.get("n_prompt_tokens"), _PROMPT_NUMBER, text),
            context_length=_number(body.get("n_ctx"), _CONTEXT_NUMBER, text),
        )

    def is_overflow(self, status: int | None) -> bool:
        if status in (401, 403, 404, 429):
            return False
        return self.code in _OVERFLOW_CODES or bool(_OVERFLOW_TEXT.search(self.text))

    def is_unknown_model(self, status: int | None, model: str | None) -> bool:
        if self.code == "model_not_found":
            return True
        if status != 404:
            return False
        text = self.text.lower()
        return "model" in text or (model is not None and model.lower() in text)


def _sentence(text: str) -> str:
    """The server's words, so that a remedy can follow them."""
    text = text.rstrip(": ")
    return text if text.endswith((".", "!", "?", "…", ">")) else f"{text}."


def _number(value: Any, pattern: re.Pattern[str], text: str) -> int | None:
    if isinstance(value, int):
        return value
    found = pattern.search(text)
    return int(found[1]) if found else None
