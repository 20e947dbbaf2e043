"""Who runs an evaluation or a workflow, and whether that process still exists."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from agentfarm._version import __version__

if TYPE_CHECKING:
    from agentfarm.store._records import RunRecord, WorkflowRecord

__all__ = ["is_gone", "new_run_id", "stamped"]

Record = TypeVar("Record", "RunRecord", "WorkflowRecord")

# Linux counts start times from a boot time that is rounded, and that moves when the
# clock is set.
_TOLERANCE_S = 2.0


def new_run_id() -> str:
    """An id for a run or a workflow, sortable by time."""
    now = datetime.now(UTC)
    stamp = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}"
    return f"{stamp}-{secrets.token_hex(2)}"


def stamped(record: Record) -> Record:
    """The record with this process's identity, by which readers see it is alive."""
    import psutil

    return replace(
        record,
        pid=os.getpid(),
        process_started_at=psutil.Process().create_time(),
        hostname=socket.gethostname(),
        version=__version__,
    )


def is_gone(run: RunRecord | WorkflowRecord) -> bool:
    """Whether a run is marked running although its process is dead.

    Known only on the run's own host, by process id and start time, since ids are
    used again. A zombie is dead. Whatever cannot be known counts as alive.
    """
    if run.status != "running" or run.pid is None:
        return False
    if run.hostname != socket.gethostname():
        return False
    import psutil

    try:
        process = psutil.Process(run.pid)
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            started_at = process.create_time()
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    known = run.process_started_at
    return known is not None and abs(started_at - known) > _TOLERANCE_S
