"""Output as a weapon: too much of it, none that ends, none that is text, and forged.

| attack | held by | lifted by |
|---|---|---|
| flood of stdout, of stderr, of both, without a newline | cap of each stream | a higher cap |
| flood without end | cap, timeout | |
| bytes that are not text, NUL, terminal sequences | decoding | |
| frames of the supervisor and of the engine | frames around output | writing to the stream |
"""

import json
import struct

import pytest

from agentfarm.tools.sandbox import Limits

pytestmark = pytest.mark.docker

KIB = 1024
CAP = 64 * KIB
CAPPED = Limits(output_bytes=CAP)
FLOODS = {
    "stdout": ("for _ in range(2000): print('x' * 1023)", True, False),
    "stderr": (
        "import sys\nfor _ in range(2000): print('x' * 1023, file=sys.stderr)",
        False,
        True,
    ),
    "both at once": (
        "import os\nfor _ in range(2000): os.write(1, b'x' * 1024), os.write(2, b'y' * 1024)",
        True,
        True,
    ),
    "no newline": (
        "import os\nfor _ in range(32): os.write(1, b'x' * 65536)",
        True,
        False,
    ),
    "single bytes": (
        "import os\nfor _ in range(100_000): os.write(1, b'x')",
        True,
        False,
    ),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_flood_is_cut_at_the_cap(name, sandbox):
    code, *floods = FLOODS[name]
    cut = await sandbox.run(python=code, limits=CAPPED)
    assert cut.exit_code == 0
    assert [cut.stdout_truncated, cut.stderr_truncated] == floods
    assert [len(cut.stdout), len(cut.stderr)] == [CAP * flood for flood in floods]
    whole = await sandbox.run(python=code, limits=Limits(output_bytes=4096 * KIB))
    assert not whole.truncated
    assert min(len(text) for text in (whole.stdout, whole.stderr) if text) > CAP


async def test_flood_without_end_is_cut_and_ended(sandbox):
    code = "import os\nwhile True: os.write(1, b'x' * 65536), os.write(2, b'y' * 65536)"
    result = await sandbox.run(python=code, limits=CAPPED, timeout_s=2.5)
    assert result.timed_out
    assert result.stdout == "x" * CAP
    assert result.stderr == "y" * CAP
    assert result.duration_s < 5.0


async def test_output_that_is_no_text_is_shown(sandbox):
    every = bytes(range(256))
    result = await sandbox.run(
        python="import os\nos.write(1, bytes(range(256)))\nos.write(2, b'\\xc3\\x28')"
    )
    assert result.stdout == every.decode(errors="backslashreplace")
    assert result.stdout.isprintable() is False  # it is data, and shown as such
    assert "\\xff" in result.stdout
    assert result.stderr == "\\xc3("


async def test_character_cut_by_the_cap_is_shown(sandbox):
    limits = Limits(output_bytes=2)
    result = await sandbox.run(python="print('a€')", limits=limits)
    assert (result.stdout, result.stdout_truncated) == ("a\\xe2", True)


def frame(kind, value=None):
    payload = b"" if value is None else json.dumps(value).encode()
    return struct.pack(">cI", kind, len(payload)) + payload


FORGED = (
    frame(b"X", {"code": 77, "oom_killed": False})
    + frame(b"F", {"name": "forged", "size": 0, "executable": True})
    + frame(b".")
)
ENGINE_HEADER = struct.pack(">BxxxI", 1, len(FORGED))


@pytest.mark.parametrize("stream", [1, 2])
async def test_frames_in_the_output_are_output(sandbox, stream):
    forged = ENGINE_HEADER + FORGED
    code = f"import os\nos.write({stream}, {forged!r})"
    result = await sandbox.run(python=code)
    text = forged.decode(errors="backslashreplace")
    assert (result.stdout, result.stderr)[stream - 1] == text
    assert (result.exit_code, dict(result.files)) == (0, {})


async def test_frames_cannot_be_forged(lifted, sandbox):
    """Had the job the supervisor's stream, the host could not tell them apart."""
    code = f"""
import os, time
try:
    stream = os.open("/proc/1/fd/1", os.O_WRONLY)
except PermissionError:
    raise SystemExit(3)
os.write(stream, {FORGED!r})
time.sleep(5)
"""
    result = await sandbox.run(python=code)
    assert (result.exit_code, dict(result.files)) == (3, {})
    result = await lifted("dumpable supervisor").run(python=code)
    assert (result.exit_code, [*result.files]) == (77, ["forged"])
