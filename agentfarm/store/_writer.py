"""The one thread per Store that writes."""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from agentfarm.errors import StoreError
from agentfarm.store._tables import (
    GPU_SAMPLES,
    HOST_SAMPLES,
    MEMORIES,
    REQUESTS,
    RUNS,
    SAMPLES,
    WORKFLOW_STEPS,
    WORKFLOWS,
    RecordTable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

    from agentfarm.events import RequestRecord
    from agentfarm.store._database import Database

__all__ = ["Writer"]

R = TypeVar("R")

_LOG = logging.getLogger("agentfarm.store")

# A batch this large is written at once; SQLite does it in a few milliseconds.
_LARGE_BATCH = 500
_RETRY_S = 0.05
_MAX_RETRY_S = 1.0

_TELEMETRY: tuple[RecordTable[Any], ...] = (REQUESTS, GPU_SAMPLES, HOST_SAMPLES)
_MAPPINGS: tuple[RecordTable[Any], ...] = (
    *_TELEMETRY,
    *(RUNS, SAMPLES, WORKFLOWS, WORKFLOW_STEPS, MEMORIES),
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that somebody waits for; no table means to wait for what came before."""

    table: Table | None = None
    values: dict[str, Any] = field(default_factory=dict)
    stored: Future[None] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What goes into one transaction."""

    rows: list[_Row]
    telemetry: list[tuple[RecordTable[Any], list[Any]]]

    def __len__(self) -> int:
        return len(self.rows) + sum(len(records) for _, records in self.telemetry)

    def singles(self) -> Iterator[_Batch]:
        yield from (_Batch([row], []) for row in self.rows)
        for mapping, records in self.telemetry:
            yield from (_Batch([], [(mapping, [record])]) for record in records)


class Writer:
    """Drains a queue into the database, in group commits.

    Telemetry waits for its batch, at most `flush_s`. If the database cannot be
    written for now (locked, full, gone), the batch in hand is tried again and
    again; meanwhile of each kind of telemetry the newest `buffer` records are kept,
    older ones are dropped and counted, and all other rows are kept. A row that the
    database refuses for itself does not hold up the others.

    Attributes:
        dropped: Records of telemetry that were given up, by their table.
    """

    def __init__(
        self, database: Database, *, flush_s: float, buffer: int, patience_s: float
    ) -> None:
        self.dropped: Counter[RecordTable[Any]] = Counter()
        self._database = database
        self._flush_s = flush_s
        self._buffer = buffer
        self._patience_s = patience_s
        self._upserts = {
            mapping.table: database.upsert(mapping.table) for mapping in _MAPPINGS
        }
        # Reentrant, since a garbage collection inside may call `stop`.
        self._wake = threading.Condition(threading.RLock())
        self._rows: list[_Row] = []
        self._telemetry: dict[RecordTable[Any], deque[Any]] = {
            mapping: deque() for mapping in _TELEMETRY
        }
        self._queued = 0
        self._due = 0.0
        self._in_hand = 0
        self._lost = 0
        self._outage: str | None = None
        self._give_up_at: float | None = None
        self._thread = threading.Thread(
            target=self._run, name="agentfarm-store", daemon=True
        )
        # A daemon thread, because the interpreter would wait for another kind
        # before it calls what is registered here.
        atexit.register(self._close_at_exit)
        self._thread.start()

    def add_request(self, record: RequestRecord) -> None:
        """Queue the record of a request, see `add`."""
        self.add(REQUESTS, record)

    def add(self, mapping: RecordTable[R], record: R) -> None:
        """Queue telemetry; takes microseconds and waits for nothing."""
        with self._wake:
            self._refuse_if_stopped()
            queue = self._telemetry[mapping]
            if len(queue) >= self._buffer:
                queue.popleft()
                self.dropped[mapping] += 1
                self._queued -= 1
            queue.append(record)
            self._queued += 1
            if self._queued == 1:
                self._due = time.monotonic() + self._flush_s
            if self._queued in (1, _LARGE_BATCH):
                self._wake.notify()

    def put(self, mapping: RecordTable[Any], record: Any) -> None:
        """Store a record and wait until it is committed."""
        self._wait(self._submit(_row(mapping, record)))

    async def put_async(self, mapping: RecordTable[Any], record: Any) -> None:
        """Store a record and wait until it is committed, without blocking the loop.

        A task that is cancelled while it waits has its record stored all the same.
        """
        stored = asyncio.wrap_future(self._submit(_row(mapping, record)))
        try:
            await asyncio.wait_for(stored, self._patience_s)
        except TimeoutError:
            raise self._late() from None

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all that was queued before is committed, or dropped."""
        self._wait(self._submit(_Row()), timeout_s)

    def stop(self) -> None:
        """Let the thread write what is queued and end; does not wait for it."""
        with self._wake:
            if self._give_up_at is None:
                self._give_up_at = time.monotonic() + self._patience_s
            self._wake.notify()

    def close(self) -> None:
        """Stop, and wait for the end.

        Raises:
            StoreError: Rows could not be written and are lost.
        """
        self.stop()
        if self._thread is threading.current_thread():
            return  # a garbage collection in the thread itself
        # The attempt under way may wait for its lock once more.
        self._thread.join(2 * self._patience_s + 1)
        lost = self._lost
        if self._thread.is_alive():
            lost += self._in_hand + len(self._rows) + self._queued
        self._lost = 0
        if lost:
            raise StoreError(
                f"The Store at {self._database.label} was closed while {lost} rows "
                f"were not written: {self._outage or 'the database does not answer'}.",
                remedy="They are lost. Find out what blocks the database.",
            )

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except StoreError as error:
            _LOG.error("%s", error)

    def _refuse_if_stopped(self) -> None:
        if self._give_up_at is not None:
            raise StoreError(
                f"The Store at {self._database.label} is closed.",
                remedy="Open it again with Store.open.",
            )

    def _submit(self, row: _Row) -> Future[None]:
        # Running from the start, so that who stops waiting does not cancel it.
        row.stored.set_running_or_notify_cancel()
        with self._wake:
            self._refuse_if_stopped()
            self._rows.append(row)
            self._wake.notify()
        return row.stored

    def _wait(self, stored: Future[None], timeout_s: float | None = None) -> None:
        try:
            stored.result(self._patience_s if timeout_s is None else timeout_s)
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> StoreError:
        return StoreError(
            f"The Store at {self._database.label} did not write within "
            f"{self._patience_s:g} s: {self._outage or 'the database does not answer'}.",
            remedy="Runs and the like stay in memory and are tried again until the "
            "Store is closed. Find out what blocks the database.",
        )

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._in_hand = len(batch)
            self._store(batch)
            self._in_hand = 0
        self._database.close()
        atexit.unregister(self._close_at_exit)

    def _next_batch(self) -> _Batch | None:
        """Wait until there is reason to write; None after the last batch."""
        with self._wake:
            while not self._rows and self._give_up_at is None:
                wait_s = None
                if self._queued:
                    wait_s = self._due - time.monotonic()
                    if wait_s <= 0 or self._queued >= _LARGE_BATCH:
                        break
                self._wake.wait(wait_s)
            if not self._rows and not self._queued:
                return None
            telemetry = [
                (mapping, list(queue))
                for mapping, queue in self._telemetry.items()
                if queue
            ]
            batch = _Batch(self._rows, telemetry)
            self._rows = []
            for queue in self._telemetry.values():
                queue.clear()
            self._queued = 0
            return batch

    def _store(self, batch: _Batch) -> None:
        """Write a batch, however long it takes, until `close` gives up."""
        pause_s = _RETRY_S
        while True:
            try:
                self._transact(batch)
            except Exception as error:  # noqa: BLE001 - the thread must live on
                if not self._database.is_transient(error):
                    self._sort_out(batch, error)
                    return
                self._note_outage(error)
                if self._give_up_at and time.monotonic() > self._give_up_at:
                    self._reject(batch, error)
                    return
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _MAX_RETRY_S)
            else:
                break
        if self._outage:
            _LOG.warning("The Store at %s is written again.", self._database.label)
            self._outage = None
        for row in batch.rows:
            row.stored.set_result(None)

    def _transact(self, batch: _Batch) -> None:
        rows: dict[Table, list[dict[str, Any]]] = {}
        for row in batch.rows:
            if row.table is not None:
                rows.setdefault(row.table, []).append(row.values)
        for mapping, records in batch.telemetry:
            rows[mapping.table] = [mapping.dump(record) for record in records]
        if not rows:
            return
        with self._database.write() as connection:
            for table, values in rows.items():
                connection.execute(self._upserts[table], values)

    def _sort_out(self, batch: _Batch, error: Exception) -> None:
        """Write row by row, so that only the offending ones are refused."""
        if len(batch) == 1:
            self._reject(batch, error)
            return
        for single in batch.singles():
            self._store(single)

    def _reject(self, batch: _Batch, error: Exception) -> None:
        failure = self._database.failure("write to", error)
        for mapping, records in batch.telemetry:
            self.dropped[mapping] += len(records)
        if self._give_up_at is not None:
            self._lost += sum(len(records) for _, records in batch.telemetry)
            self._lost += sum(row.table is not None for row in batch.rows)
        elif batch.telemetry:
            _LOG.warning("A record of telemetry is dropped. %s", failure)
        for row in batch.rows:
            row.stored.set_exception(failure)

    def _note_outage(self, error: Exception) -> None:
        if self._outage is None:
            _LOG.warning("%s", self._database.failure("write to", error))
        self._outage = str(getattr(error, "orig", None) or error).strip()


def _row(mapping: RecordTable[Any], record: Any) -> _Row:
    return _Row(mapping.table, mapping.dump(record))
