"""What is asked of the Store."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import Connection, Select, case, func, select
from sqlalchemy.exc import SQLAlchemyError

from agentfarm.errors import StoreError
from agentfarm.store._hardware import samples_query
from agentfarm.store._liveness import is_gone
from agentfarm.store._recall import rank
from agentfarm.store._records import RunRecord, SampleTally, WorkflowRecord
from agentfarm.store._tables import (
    MEMORIES,
    REQUESTS,
    RUNS,
    SAMPLES,
    WORKFLOW_STEPS,
    WORKFLOWS,
    RecordTable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentfarm.events import RequestRecord
    from agentfarm.store._database import Database
    from agentfarm.store._records import (
        MemoryRecord,
        SampleRecord,
        WorkflowStepRecord,
    )

__all__ = ["Reader"]

R = TypeVar("R")
T = TypeVar("T")
P = TypeVar("P", RunRecord, WorkflowRecord)

_NEAR = 5
# Well below the number of parameters that any database takes.
_IDS_AT_ONCE = 500
# Memories are ranked here, alike for every database: so many of a project at most.
_RECALLED = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Process(Generic[P]):
    """What a process runs, found by its id, and what to say where it is not.

    Attributes:
        table: Its records, which have `run_id`, `started_at` and `status`.
        name: What people call one of them.
        first: How to make the first.
        listing: How to see all, as the end of a sentence.
    """

    table: RecordTable[P]
    name: str
    first: str
    listing: str = ""


_RUN = _Process(
    table=RUNS,
    name="run",
    first="Run an evaluation first.",
    listing="; `agentfarm eval list` lists all",
)
_WORKFLOW = _Process(
    table=WORKFLOWS, name="workflow", first='Run one: agentfarm run "task".'
)


class Reader:
    """Queries that give records; each is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(
        self, *, suite: str | None, model: str | None, limit: int | None
    ) -> list[RunRecord]:
        query = _newest(RUNS).limit(limit)
        if suite is not None:
            query = query.where(RUNS.table.c.suite == suite)
        if model is not None:
            query = query.where(RUNS.table.c.model == model)
        return [_as_seen(run) for run in self._fetch(RUNS, query)]

    def run(self, run_id: str) -> RunRecord:
        return self._one(_RUN, run_id)

    def workflows(self, *, limit: int | None) -> list[WorkflowRecord]:
        found = self._fetch(WORKFLOWS, _newest(WORKFLOWS).limit(limit))
        return [_as_seen(workflow) for workflow in found]

    def workflow(self, run_id: str) -> WorkflowRecord:
        return self._one(_WORKFLOW, run_id)

    def workflow_steps(self, run_id: str) -> list[WorkflowStepRecord]:
        column = WORKFLOW_STEPS.table.c
        return self._fetch(
            WORKFLOW_STEPS,
            select(WORKFLOW_STEPS.table)
            .where(column.run_id == run_id)
            .order_by(column.seq, column.started_at, column["key"]),
        )

    def memories(
        self, project: str, *, query: str | None, limit: int | None
    ) -> list[MemoryRecord]:
        column = MEMORIES.table.c
        newest = select(MEMORIES.table).where(column.project == project)
        newest = newest.order_by(column.created_at.desc(), column.memory_id.desc())
        if query is None:
            return self._fetch(MEMORIES, newest.limit(limit))
        return rank(self._fetch(MEMORIES, newest.limit(_RECALLED)), query)[:limit]

    def samples(self, run_id: str) -> list[SampleRecord]:
        column = SAMPLES.table.c
        return self._fetch(
            SAMPLES,
            select(SAMPLES.table)
            .where(column.run_id == run_id)
            .order_by(column.started_at, column.sample_id),
        )

    def tallies(self, run_ids: Sequence[str]) -> dict[str, SampleTally]:
        column = SAMPLES.table.c
        query = select(
            column.run_id,
            func.count(),
            func.sum(case((column.status == "error", 1), else_=0)),
            func.avg(func.coalesce(column.score, 0.0)),
        ).group_by(column.run_id)
        found = dict.fromkeys(run_ids, SampleTally())
        for start in range(0, len(run_ids), _IDS_AT_ONCE):
            some = run_ids[start : start + _IDS_AT_ONCE]
            wanted = query.where(column.run_id.in_(some))
            for run_id, samples, errors, score in self._read(partial(_rows, wanted)):
                found[run_id] = SampleTally(
                    samples=samples, errors=int(errors), score=float(score)
                )
        return found

    def requests(
        self,
        *,
        run_id: str | None,
        since: float | None,
        until: float | None,
        limit: int | None,
    ) -> list[RequestRecord]:
        column = REQUESTS.table.c
        query = select(REQUESTS.table).limit(limit)
        query = query.order_by(column.started_at.desc(), column.request_id.desc())
        if run_id is not None:
            query = query.where(column.run_id == run_id)
        if since is not None:
            query = query.where(column.started_at >= since)
        if until is not None:
            query = query.where(column.started_at < until)
        return self._fetch(REQUESTS, query)[::-1]

    def hardware(
        self,
        mapping: RecordTable[R],
        *,
        since: float | None,
        until: float | None,
        step_s: int | None,
        hostname: str | None,
    ) -> list[R]:
        query = samples_query(
            mapping, since=since, until=until, step_s=step_s, hostname=hostname
        )
        return self._fetch(mapping, query)

    def _one(self, kind: _Process[P], run_id: str) -> P:
        found = self._read(lambda connection: _find(connection, kind.table, run_id))
        if len(found) == 1:
            return _as_seen(found[0])
        if found:
            near = [each.run_id for each in found]
            raise StoreError(
                f"{len(near)} {kind.name}s begin with {run_id!r}: {_listed(near)}.",
                remedy="Give more characters of the id.",
            )
        raise self._unknown(kind, run_id)

    def _unknown(self, kind: _Process[P], run_id: str) -> StoreError:
        column = kind.table.table.c
        query = select(column.run_id).order_by(column.started_at.desc())
        ids = self._read(lambda connection: list(connection.scalars(query.limit(1000))))
        place = f"in the Store at {self._database.label}"
        if not ids:
            return StoreError(f"There are no {kind.name}s {place}.", remedy=kind.first)
        near = difflib.get_close_matches(run_id, ids, n=_NEAR)
        return StoreError(
            f"There is no {kind.name} {run_id!r} {place}.",
            remedy=f"Near it: {_listed(near)}."
            if near
            else f"The newest is {ids[0]}{kind.listing}.",
        )

    def _fetch(self, mapping: RecordTable[R], query: Select[Any]) -> list[R]:
        return self._read(lambda connection: _records(connection, mapping, query))

    def _read(self, query: Callable[[Connection], T]) -> T:
        try:
            return self._database.read(query)
        except SQLAlchemyError as error:
            raise self._database.failure("read", error) from error


def _rows(query: Select[Any], connection: Connection) -> list[Any]:
    return list(connection.execute(query))


def _records(
    connection: Connection, mapping: RecordTable[R], query: Select[Any]
) -> list[R]:
    rows = connection.execute(query)
    names = tuple(rows.keys())
    return [mapping.load(dict(zip(names, row, strict=True))) for row in rows]


def _newest(mapping: RecordTable[P]) -> Select[Any]:
    column = mapping.table.c
    return select(mapping.table).order_by(
        column.started_at.desc(), column.run_id.desc()
    )


def _find(connection: Connection, mapping: RecordTable[P], run_id: str) -> list[P]:
    """The one of this id, the newest, or all whose ids begin like this."""
    if run_id == "latest":
        return _records(connection, mapping, _newest(mapping).limit(1))
    column = mapping.table.c.run_id
    query = select(mapping.table).where(column == run_id)
    exact = _records(connection, mapping, query)
    if exact or not run_id:
        return exact
    # Not LIKE, which ignores case in SQLite and knows wildcards.
    begins = func.substr(column, 1, len(run_id)) == run_id
    return _records(connection, mapping, _newest(mapping).where(begins))


def _listed(ids: list[str]) -> str:
    more = ", …" if len(ids) > _NEAR else ""
    return ", ".join(ids[:_NEAR]) + more


def _as_seen(record: P) -> P:
    """The record with ``interrupted`` for one whose process has died over it."""
    return replace(record, status="interrupted") if is_gone(record) else record
