"""The frames: cut anywhere, and nothing believed."""

import pytest

from agentfarm.errors import SandboxError
from agentfarm.tools.sandbox._wire import (
    MAX_PAYLOAD,
    Decoder,
    frame,
    json_frame,
    parse,
)

STREAM = frame(b"R") + frame(b"O", b"hello") + json_frame(b"X", {"code": 0})


@pytest.mark.parametrize("step", [1, 2, 5, 7, len(STREAM)])
def test_a_stream_cut_anywhere_gives_the_same_frames(step):
    decoder = Decoder()
    found = [
        each
        for start in range(0, len(STREAM), step)
        for each in decoder.feed(STREAM[start : start + step])
    ]
    assert found == [(b"R", b""), (b"O", b"hello"), (b"X", b'{"code": 0}')]


def test_a_frame_longer_than_any_is_refused_before_it_is_read():
    header = frame(b"O", b"")[:1] + (MAX_PAYLOAD + 1).to_bytes(4)
    with pytest.raises(SandboxError, match=f"a frame of {MAX_PAYLOAD + 1} bytes"):
        list(Decoder().feed(header))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"size": 1}',
        b'{"name": 1, "size": 1}',
        b'{"name": "a", "size": "1"}',
        b'{"name": "a", "size": true}',
        b'{"name": "a", "size": 1.5}',
        b'{"name": "a", "size": NaN}',
        b"\xff\xfe",
        b"[" * 60000,
        b'{"name": "a", "size": ' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_is_not_what_was_agreed_is_an_error_of_ours(payload):
    with pytest.raises(SandboxError, match="never does"):
        parse(payload, name=str, size=int)
