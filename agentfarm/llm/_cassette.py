"""Cassettes: recorded answers in a JSON Lines file, and how to find one again.

The first line is a header, every further line one answer::

    {"format": "agentfarm-cassette", "version": 1, "created_at": …}
    {"key": "…", "model": "…", "asked": "…", "chunks": [{"at_s": 0.1, "text": "Hi"}],
     "response": {…}}
    {"key": "…", "model": "…", "asked": "…", "chunks": […], "error": {…}}

``response`` is a `ChatResponse`, ``chunks`` are `ChatChunk`s, in JSON; fields with
their default value are left out of chunks. ``asked`` is for people who read it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from agentfarm import errors
from agentfarm._version import __version__
from agentfarm.errors import ConfigError, ProviderError
from agentfarm.llm._messages import (  # noqa: TC001 - msgspec reads them at run time
    ChatChunk,
    ChatResponse,
    ToolCallDelta,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agentfarm.llm._messages import ChatRequest, Message

__all__ = ["Recording", "append_recording", "read_cassette", "request_key", "summary"]

FORMAT = "agentfarm-cassette"
VERSION = 1
_SUMMARY_CHARACTERS = 120
_ERROR_FIELDS = (
    "remedy",
    "status_code",
    "retryable",
    "partial_text",
    "retry_after_s",
    "phase",
    "timeout_s",
    "prompt_tokens",
    "context_length",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One answer, or the error that came instead.

    Attributes:
        key: See `request_key`.
        model: The server's name for the model that was asked.
        asked: The request in a few words, for people.
        chunks: As they arrived.
        response: The whole answer; None if `error`.
        error: As JSON values; None if `response`.
    """

    key: str
    model: str
    asked: str
    chunks: tuple[ChatChunk, ...]
    response: ChatResponse | None = None
    error: dict[str, Any] | None = None

    def to_error(self) -> ProviderError:
        """The recorded error, of its own class."""
        fields = dict(self.error or {})
        found = getattr(errors, str(fields.pop("type", "")), ProviderError)
        if not (isinstance(found, type) and issubclass(found, ProviderError)):
            found = ProviderError
        error = found(str(fields.pop("message", "")), model=self.model)
        for name in _ERROR_FIELDS:
            if name in fields:
                setattr(error, name, fields[name])
        return error


def request_key(request: ChatRequest) -> str:
    """What makes two requests the same: a SHA-256 over canonical JSON.

    It covers the conversation, tools, schema, sampling and extra fields. It does
    not cover the model's name, since a cassette stands in for models of other
    names; nor context length, timeouts, task type and who asks, which do not
    shape an answer by themselves; nor the ids of tool calls, which may be random.
    """
    canonical = {
        "messages": [_turn(message) for message in request.messages],
        "tools": [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            }
            for tool in request.tools
        ],
        "tool_choice": request.tool_choice if request.tools else "auto",
        "response_schema": request.response_schema,
        "temperature": _number(request.temperature),
        "top_p": _number(request.top_p),
        "seed": request.seed,
        "stop": request.stop,
        "max_tokens": request.max_tokens,
        "extra": request.extra,
    }
    text = msgspec.json.encode(canonical, order="deterministic")
    return hashlib.sha256(text).hexdigest()


def summary(request: ChatRequest) -> str:
    """The first words of the newest user turn, for people."""
    turns = [turn.content for turn in request.messages if turn.role == "user"]
    turns = turns or [turn.content for turn in request.messages]
    words = " ".join((turns[-1] if turns else "").split())
    if len(words) <= _SUMMARY_CHARACTERS:
        return words
    return words[: _SUMMARY_CHARACTERS - 1] + "…"


def read_cassette(path: Path) -> tuple[tuple[Recording, ...], str | None]:
    """Read every recording, and a warning where the last one is cut off.

    Raises:
        ConfigError: The file is missing, unreadable, of another format or of a
            newer version, or a line is broken.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The cassette {path} cannot be read: {error.strerror}.",
            remedy="Check AGENTFARM_CASSETTE, or record one with RecordingProvider.",
        ) from error
    whole, _, tail = content.rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    _check_header(path, lines[0] if lines else tail)
    recordings = tuple(
        _decode(path, number, line)
        for number, line in enumerate(lines[1:], start=2)
        if line.strip()
    )
    if not tail:
        return recordings, None
    return recordings, (
        f"The last answer in {path.name} is cut off and was left out; "
        "its recorder was stopped while writing."
    )


def append_recording(path: Path, recording: Recording) -> None:
    """Add one line to the cassette; it is on disk when this returns.

    Several threads and processes may append. A line that a killed recorder left
    unfinished is removed first. Blocks for the time of an fsync.

    Raises:
        ConfigError: The file cannot be written or is no cassette of this version.
    """
    line = _encode(recording)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            first = file.readline()
            if first:
                _check_header(path, first)
                _drop_unfinished_line(file)
            else:
                line = _header() + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(
            f"The cassette {path} cannot be written: {error.strerror}.",
            remedy="Record to a file in a folder that you may write.",
        ) from error


def describe_error(error: ProviderError) -> dict[str, Any]:
    """An error as JSON values, without what is empty."""
    fields: dict[str, Any] = {"type": type(error).__name__, "message": error.message}
    for name in _ERROR_FIELDS:
        value = getattr(error, name, None)
        if value not in (None, "", False):
            fields[name] = value
    return fields


def _drop_unfinished_line(file: BinaryIO) -> None:
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _turn(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.content,
        "tool_calls": [
            {"name": call.name, "arguments": call.raw_arguments}
            for call in message.tool_calls
        ],
        "name": message.name,
    }


def _number(value: float | None) -> float | None:
    """The same number for 0 and 0.0, which JSON tells apart."""
    return None if value is None else float(value)


def _header() -> bytes:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "created_at": time.time(),
        "agentfarm": __version__,
    }
    return msgspec.json.encode(header) + b"\n"


def _check_header(path: Path, line: bytes) -> None:
    try:
        header = msgspec.json.decode(line)
    except msgspec.DecodeError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is not a cassette: its first line is no {FORMAT} header.",
            remedy="Name another file, or remove it and record anew.",
        )
    version = header.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ConfigError(
            f"The cassette {path} has format version {version}; this AgentFarm "
            f"({__version__}) reads up to {VERSION}.",
            remedy="Update AgentFarm, or record the cassette anew.",
        )


def _encode(recording: Recording) -> bytes:
    fields: dict[str, Any] = {
        "key": recording.key,
        "model": recording.model,
        "asked": recording.asked,
        "chunks": [_chunk(chunk) for chunk in recording.chunks],
    }
    if recording.response is not None:
        fields["response"] = msgspec.to_builtins(recording.response)
    if recording.error is not None:
        fields["error"] = recording.error
    return msgspec.json.encode(fields) + b"\n"


def _chunk(chunk: ChatChunk) -> dict[str, Any]:
    fields: dict[str, Any] = {"at_s": chunk.at_s}
    if chunk.text:
        fields["text"] = chunk.text
    if chunk.reasoning:
        fields["reasoning"] = chunk.reasoning
    if chunk.tool_calls:
        fields["tool_calls"] = _deltas(chunk.tool_calls)
    return fields


def _deltas(deltas: Sequence[ToolCallDelta]) -> list[dict[str, Any]]:
    return [
        {
            name: value
            for name, value in msgspec.structs.asdict(delta).items()
            if name == "index" or value
        }
        for delta in deltas
    ]


def _decode(path: Path, number: int, line: bytes) -> Recording:
    try:
        recording = msgspec.json.decode(line, type=Recording)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"Line {number} of the cassette {path} is broken: {error}.",
            remedy="Restore the file, or remove this line.",
        ) from None
    if (recording.response is None) == (recording.error is None):
        raise ConfigError(
            f"Line {number} of the cassette {path} holds neither an answer nor an "
            "error, or both.",
            remedy="Remove this line.",
        )
    return recording
