"""The Store, as the rest of the package sees it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from agentfarm.errors import StoreError
from agentfarm.store._store_hardware import HardwareStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agentfarm.events import RequestRecord
    from agentfarm.store._database import Database
    from agentfarm.store._reader import Reader
    from agentfarm.store._records import (
        MemoryRecord,
        RunRecord,
        SampleRecord,
        SampleTally,
        WorkflowRecord,
        WorkflowStepRecord,
    )
    from agentfarm.store._writer import Writer

__all__ = ["Store"]


class Store(HardwareStore):
    """What was measured and done, in a SQLite file or a PostgreSQL database.

    Several processes and threads may use the same database at once. One thread per
    Store writes. A run, sample, workflow, step or memory is committed when its
    `put_…` or `add_memory` returns; telemetry of requests and hardware is committed
    in batches, so a killed process loses at most the last batch of it.

    If the database cannot be written for now, telemetry's newest records are kept,
    and the others are counted in `dropped_requests` and `dropped_samples`; all else
    waits in memory and is tried again. What is queued is written when the Store is
    closed or forgotten, and when the interpreter exits.

    Text that a database cannot hold is replaced, never refused: NUL by ``␀``, a lone
    surrogate by ``�``; NaN in JSON by null.
    """

    def __init__(
        self, database: Database, reader: Reader, writer: Writer | None
    ) -> None:
        self._database = database
        self._reader = reader
        self._writer = writer
        self._closed = False
        # Only signals: to wait inside a garbage collection could wait forever.
        self._forgotten = weakref.finalize(
            self, database.close if writer is None else writer.stop
        )
        self._forgotten.atexit = False  # the writer closes itself then

    @classmethod
    def open(
        cls,
        url: str,
        *,
        flush_s: float = 0.2,
        read_only: bool = False,
        buffer: int = 10_000,
        patience_s: float = 30.0,
    ) -> Store:
        """Open the database, and create or upgrade its tables where needed.

        Args:
            url: ``sqlite:////path/to/file.db``, taken as it stands, or
                ``postgresql+psycopg://user:password@host:5432/database``.
            flush_s: Longest time that telemetry waits for its batch, seconds.
            read_only: Create and change nothing; writing raises.
            buffer: Records of each kind of telemetry kept while the database is stuck.
            patience_s: Longest wait for a write before it raises, seconds.

        Raises:
            StoreError: The database cannot be reached or created, is damaged, is
                something else, or of a newer AgentFarm. It is left as it was.
        """
        # SQLAlchemy takes a tenth of a second to import: only who opens pays.
        from agentfarm.store._reader import Reader
        from agentfarm.store._schema import prepare
        from agentfarm.store._urls import database_at
        from agentfarm.store._writer import Writer

        database = database_at(url)
        try:
            prepare(database, read_only=read_only, wait_s=min(5.0, patience_s))
        except BaseException:
            database.close()
            raise
        writer = None
        if not read_only:
            writer = Writer(
                database, flush_s=flush_s, buffer=buffer, patience_s=patience_s
            )
        return cls(database, Reader(database), writer)

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return self._database.label

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading only."""
        return self._writer is None

    @property
    def dropped_requests(self) -> int:
        """Records of requests that were given up since it was opened."""
        from agentfarm.store._tables import REQUESTS

        return 0 if self._writer is None else self._writer.dropped[REQUESTS]

    def add_request(self, record: RequestRecord) -> None:
        """Keep what a request cost; from any thread, in microseconds.

        Raises:
            StoreError: The Store is closed or read-only.
        """
        self._writing().add_request(record)

    def put_run(self, run: RunRecord) -> None:
        """Insert or replace a run; it is durable when this returns.

        Raises:
            StoreError: It was refused, or not written within `patience_s`.
        """
        from agentfarm.store._tables import RUNS

        self._writing().put(RUNS, run)

    def put_sample(self, sample: SampleRecord) -> None:
        """Insert or replace a sample; it is durable when this returns.

        Raises:
            StoreError: It was refused, or not written within `patience_s`.
        """
        from agentfarm.store._tables import SAMPLES

        self._writing().put(SAMPLES, sample)

    async def put_run_async(self, run: RunRecord) -> None:
        """`put_run` without blocking the loop; a cancelled task's run is kept."""
        from agentfarm.store._tables import RUNS

        await self._writing().put_async(RUNS, run)

    async def put_sample_async(self, sample: SampleRecord) -> None:
        """`put_sample` without blocking the loop; a cancelled task's sample is kept."""
        from agentfarm.store._tables import SAMPLES

        await self._writing().put_async(SAMPLES, sample)

    def put_workflow(self, workflow: WorkflowRecord) -> None:
        """Insert or replace a workflow; it is durable when this returns.

        Raises:
            StoreError: It was refused, or not written within `patience_s`.
        """
        from agentfarm.store._tables import WORKFLOWS

        self._writing().put(WORKFLOWS, workflow)

    def put_workflow_step(self, step: WorkflowStepRecord) -> None:
        """Insert or replace a workflow's step; it is durable when this returns.

        Raises:
            StoreError: It was refused, or not written within `patience_s`.
        """
        from agentfarm.store._tables import WORKFLOW_STEPS

        self._writing().put(WORKFLOW_STEPS, step)

    def add_memory(self, memory: MemoryRecord) -> None:
        """Insert or replace a memory; it is durable when this returns.

        Raises:
            StoreError: It was refused, or not written within `patience_s`.
        """
        from agentfarm.store._tables import MEMORIES

        self._writing().put(MEMORIES, memory)

    async def put_workflow_async(self, workflow: WorkflowRecord) -> None:
        """`put_workflow` without blocking the loop; a cancelled task's one is kept."""
        from agentfarm.store._tables import WORKFLOWS

        await self._writing().put_async(WORKFLOWS, workflow)

    async def put_workflow_step_async(self, step: WorkflowStepRecord) -> None:
        """`put_workflow_step` without blocking; a cancelled task's step is kept."""
        from agentfarm.store._tables import WORKFLOW_STEPS

        await self._writing().put_async(WORKFLOW_STEPS, step)

    async def add_memory_async(self, memory: MemoryRecord) -> None:
        """`add_memory` without blocking the loop; a cancelled task's one is kept."""
        from agentfarm.store._tables import MEMORIES

        await self._writing().put_async(MEMORIES, memory)

    def flush(self) -> None:
        """Wait until all telemetry added so far is committed.

        Raises:
            StoreError: That took longer than `patience_s`.
        """
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is queued and close; further calls do nothing.

        Raises:
            StoreError: Rows could not be written and are lost.
        """
        if self._closed:
            return
        self._closed = True
        self._forgotten.detach()
        if self._writer is None:
            self._database.close()
        else:
            self._writer.close()

    def runs(
        self,
        *,
        suite: str | None = None,
        model: str | None = None,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """Runs, newest first.

        One that is marked running is reported as ``interrupted`` if its process ran
        on this host and is gone.
        """
        return self._reading().runs(suite=suite, model=model, limit=limit)

    def run(self, run_id: str) -> RunRecord:
        """One run, by its id, the beginning of its id, or ``latest``.

        Raises:
            StoreError: None or several fit; the message names near ones.
        """
        return self._reading().run(run_id)

    def samples(self, run_id: str) -> list[SampleRecord]:
        """The samples of a run, by the full id, in the order they started."""
        return self._reading().samples(run_id)

    def tallies(self, run_ids: Sequence[str]) -> dict[str, SampleTally]:
        """How many samples each run has and their mean score, by full id."""
        return self._reading().tallies(run_ids)

    def workflows(self, *, limit: int | None = None) -> list[WorkflowRecord]:
        """Workflows, newest first.

        One that is marked running is reported as ``interrupted`` if its process ran
        on this host and is gone.
        """
        return self._reading().workflows(limit=limit)

    def workflow(self, run_id: str) -> WorkflowRecord:
        """One workflow, by its id, the beginning of its id, or ``latest``.

        Raises:
            StoreError: None or several fit; the message names near ones.
        """
        return self._reading().workflow(run_id)

    def workflow_steps(self, run_id: str) -> list[WorkflowStepRecord]:
        """The steps of a workflow, by the full id, in their order."""
        return self._reading().workflow_steps(run_id)

    def memories(
        self, project: str, query: str | None = None, limit: int | None = 50
    ) -> list[MemoryRecord]:
        """What a project remembers, newest first.

        Args:
            project: Only what belongs to it, by its exact name.
            query: Only what shares a word with this, the most words first. It is
                looked for among the newest 2000.
            limit: At most this many.
        """
        return self._reading().memories(project, query=query, limit=limit)

    def requests(
        self,
        *,
        run_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
    ) -> list[RequestRecord]:
        """What requests cost, oldest first, this Store's own ones included.

        Args:
            run_id: Only those of this run.
            since: Only those that started at this Unix time or later.
            until: Only those that started before this Unix time.
            limit: At most this many, the newest ones.
        """
        reader = self._reading()
        self._write_telemetry()
        return reader.requests(run_id=run_id, since=since, until=until, limit=limit)

    def _reading(self) -> Reader:
        self._refuse_if_closed()
        return self._reader

    def _writing(self) -> Writer:
        self._refuse_if_closed()
        if self._writer is None:
            raise StoreError(
                f"The Store at {self.url} is open for reading only.",
                remedy="Open it without read_only=True to write.",
            )
        return self._writer

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError(
                f"The Store at {self.url} is closed.",
                remedy="Open it again with Store.open.",
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "read-only" if self.read_only else ""
        return f"<Store {self.url}{' ' + state if state else ''}>"
