"""What the tests of bubblewrap and of control groups share."""

import os

import pytest

from agentfarm.errors import SandboxUnavailable
from agentfarm.tools.sandbox._cgroup import PREFIX
from agentfarm.tools.sandbox._jail import Host
from agentfarm.tools.sandbox._probe import probe


@pytest.fixture(scope="session")
def probed() -> Host | SandboxUnavailable:
    """What this machine has for sandboxes, or the error that says why nothing."""
    try:
        return probe()
    except SandboxUnavailable as error:
        return error


@pytest.fixture
def host(probed, require) -> Host:
    """What bubblewrap sandboxes are made of here."""
    if isinstance(probed, SandboxUnavailable):
        require("bubblewrap", str(probed))
    return probed


@pytest.fixture
def groups():
    """Call it for the names of the control groups of a process, this one's if None."""

    def groups(pid=None):
        mark = f":{pid or os.getpid()}:"
        # Others' groups go any time, which rglob does not stand.
        found = (name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names)
        return [name for name in found if name.startswith(PREFIX) and mark in name]

    return groups
