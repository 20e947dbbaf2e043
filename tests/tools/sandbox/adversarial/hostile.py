"""How a hostile program in the supervisor's place begins; its deeds follow."""

import json
import os
import struct
import sys
import time


def send(kind, payload=b"", *, length=None):
    """Write one frame, which may lie about its length."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    length = len(payload) if length is None else length
    write(1, struct.pack(">cI", kind, length) + payload)


def write(target, data):
    """Write it all; end with the host."""
    try:
        while data:
            data = data[os.write(target, data) :]
    except OSError:
        sys.exit()


def take_job():
    """Read what the host hands over, until it says go."""
    with open(0, "rb", closefd=False) as stream:
        while True:
            kind, length = struct.unpack(">cI", stream.read(5))
            stream.read(length)
            if kind == b"G":
                return


def file(name, content=b"x", size=None):
    """Send a file."""
    size = len(content) if size is None else size
    send(b"F", {"name": name, "size": size, "executable": False})
    for start in range(0, len(content), 65536):
        send(b"D", content[start : start + 65536])


def end(code=0):
    """Say that the job has ended."""
    send(b"X", {"code": code, "oom_killed": False})


def wait():
    """Say no more."""
    time.sleep(60)
