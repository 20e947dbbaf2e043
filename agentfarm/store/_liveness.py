"""Whether the process that runs an evaluation or a workflow still exists."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentfarm.store._records import RunRecord, WorkflowRecord

__all__ = ["is_gone"]

# Linux counts start times from a boot time that is rounded, and that moves when the
# clock is set.
_TOLERANCE_S = 2.0


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
