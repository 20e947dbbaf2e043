"""The frames between the host and a sandbox's supervisor.

A frame is one byte for its kind, the length of the payload as four bytes big-endian,
and the payload. To the supervisor:

| kind | payload |
|---|---|
| `J` | the job, JSON |
| `F` | a file begins: JSON `name`, `executable` |
| `D` | bytes of that file |
| `I` | bytes of the job's stdin |
| `G` | nothing: start |

From it:

| kind | payload |
|---|---|
| `R` | nothing: ready for a job |
| `!` | why the job cannot start, text |
| `O`, `E` | bytes of the job's stdout, stderr |
| `C` | `O` or `E`: more was written to it than the limit, and is dropped |
| `X` | how it ended: JSON `code`, `oom_killed` |
| `M` | a file that is gone from the work folder: JSON `name` |
| `F`, `D` | a file and its bytes: JSON `name`, `size`, `executable` |
| `S` | a file that stays behind: JSON `name`, `reason` |
| `.` | nothing: that was all |
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from agentfarm.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = struct.Struct(">cI")
MAX_PAYLOAD = 65536


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """One frame; `payload` is at most `MAX_PAYLOAD` bytes."""
    return HEADER.pack(kind, len(payload)) + payload


def json_frame(kind: bytes, value: Any) -> bytes:
    """One frame with a JSON payload."""
    return frame(kind, json.dumps(value).encode())


class Decoder:
    """Cuts what a supervisor sends into frames; holds one frame at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take bytes as they come; yields (kind, payload).

        Raises:
            SandboxError: This is not what a supervisor sends.
        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise broken(f"a frame of {length} bytes")
            if len(self._buffer) < HEADER.size + length:
                return
            payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            yield kind, payload


def parse(payload: bytes, **expected: type) -> dict[str, Any]:
    """The JSON object in a payload, with these fields of these types.

    Raises:
        SandboxError: It is not such an object.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise broken("malformed JSON") from None
    if not isinstance(value, dict):
        raise broken("JSON that is not an object")
    for name, kind in expected.items():
        if type(value.get(name)) is not kind:
            raise broken(f"no valid {name!r}")
    return value


def broken(what: str) -> SandboxError:
    """The error for a supervisor that does not keep to the format."""
    return SandboxError(
        f"The sandbox sent {what}, which its supervisor never does.",
        remedy="The code that ran in it may be hostile; nothing of it was kept.",
    )
