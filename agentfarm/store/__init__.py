"""The Store: what was measured, kept where every process sees it.

SQLAlchemy loads when a Store is opened, not when this package is imported.
"""

from __future__ import annotations

from agentfarm.store._liveness import new_run_id, stamped
from agentfarm.store._records import (
    GPUSampleRecord,
    HostSampleRecord,
    MemoryRecord,
    RunRecord,
    RunStatus,
    SampleRecord,
    SampleStatus,
    SampleTally,
    WorkflowRecord,
    WorkflowStatus,
    WorkflowStepRecord,
    WorkflowStepStatus,
)
from agentfarm.store._store import Store

__all__ = [
    "GPUSampleRecord",
    "HostSampleRecord",
    "MemoryRecord",
    "RunRecord",
    "RunStatus",
    "SampleRecord",
    "SampleStatus",
    "SampleTally",
    "Store",
    "WorkflowRecord",
    "WorkflowStatus",
    "WorkflowStepRecord",
    "WorkflowStepStatus",
    "new_run_id",
    "stamped",
]
