"""Samples of hardware: read, averaged over spans of time, and given up when old."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Double,
    Select,
    bindparam,
    case,
    cast,
    delete,
    func,
    null,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from agentfarm.store._tables import GPU_SAMPLES, HOST_SAMPLES, RecordTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Executable, Table
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from agentfarm.store._database import Database

    Columns = ReadOnlyColumnCollection[str, Any]

__all__ = ["AVERAGE_S", "Compactor", "samples_query"]

R = TypeVar("R")

# What old samples are averaged over, seconds.
AVERAGE_S = 60
# Averages that are given up are deleted in transactions of this span, seconds.
_DELETED_AT_ONCE_S = 3600

_TABLES = (GPU_SAMPLES.table, HOST_SAMPLES.table)
# Fields of a span: whose, their sum, and what is (nearly) the same in all of it.
# The others are means; fields of minima and maxima are named after their mean.
_KEYS = ("hostname", "uuid")
_SUMS = {"samples", "covered_s"}
_ALIKE = {
    *("gpu_index", "vendor", "source", "name", "driver", "parent", "error"),
    *("temperature_limit_c", "power_limit_w"),
    *("vram_total_bytes", "memory_total_bytes", "disk_total_bytes"),
}
# Several texts have no mean; the shares say how often.
_OF_A_MOMENT = {"throttle_reasons"}


def samples_query(
    mapping: RecordTable[R],
    *,
    since: float | None,
    until: float | None,
    step_s: int | None,
    hostname: str | None,
) -> Select[Any]:
    """The query for samples; see `Store.gpu_samples`."""
    table = mapping.table
    column = table.c
    # Naming the steps lets the key be searched by the time that follows in it.
    steps = (0,) if step_s == 0 else (0, AVERAGE_S)
    query = select(table).where(column.step_s.in_(steps))
    if since is not None:
        query = query.where(column.timestamp >= since)
    if until is not None:
        query = query.where(column.timestamp < until)
    if hostname is not None:
        query = query.where(column.hostname == hostname)
    if step_s:
        span = (column.timestamp // step_s) * step_s
        rows = query.add_columns(span.label("span")).subquery()
        begin = rows.c.span
        query = _averages(table, rows.c, step_s, begin).group_by(begin)
    names = ["timestamp", *(key for key in _KEYS if key in column)]
    return query.order_by(*names)


class Compactor:
    """Averages old samples and deletes older ones, in short transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Made once: that takes longer than to execute them.
        self._average = [
            statement for table in _TABLES for statement in _average(database, table)
        ]
        self._delete = [_delete(table) for table in _TABLES]

    def step(self, *, raw_before: float, keep_after: float) -> bool:
        """Average one minute of old samples, or else delete an hour of old averages.

        It is one transaction, so that a killed process leaves every minute either raw
        or averaged, and other writers wait for milliseconds only.

        Args:
            raw_before: Samples of whole minutes before this Unix time are averaged.
            keep_after: Averages of minutes that began before it are deleted.

        Returns:
            Whether there was anything to do, so that there may be more.

        Raises:
            StoreError: The database cannot be read or written for now.
        """
        try:
            raw, average = self._database.read(_oldest)
            begin = raw - raw % AVERAGE_S
            if begin + AVERAGE_S <= raw_before:
                minute = {"begin": begin, "end": begin + AVERAGE_S}
                self._write(self._average, minute)
                return True
            if average < keep_after:
                end = min(keep_after, average + _DELETED_AT_ONCE_S)
                self._write(self._delete, {"end": end})
                return True
        except SQLAlchemyError as error:
            raise self._database.failure("tidy", error) from error
        return False

    def _write(
        self, statements: Sequence[Executable], parameters: dict[str, float]
    ) -> None:
        with self._database.write() as connection:
            for statement in statements:
                connection.execute(statement, parameters)


def _oldest(connection: Connection) -> tuple[float, float]:
    """Times of the oldest sample and of the oldest average; infinite without any."""
    times = {0: math.inf, AVERAGE_S: math.inf}
    for table in _TABLES:
        for step_s in times:
            query = select(func.min(table.c.timestamp)).where(table.c.step_s == step_s)
            found = connection.scalar(query)
            times[step_s] = min(times[step_s], math.inf if found is None else found)
    return times[0], times[AVERAGE_S]


def _average(database: Database, table: Table) -> tuple[Executable, Executable]:
    """Put one row in the place of the raw ones from `begin` to `end`.

    A sample that comes late, from a clock that was set back or a database that was
    long away, is averaged into the row that is there.
    """
    column = table.c
    begin, end = bindparam("begin", type_=Double), bindparam("end", type_=Double)
    within = (column.timestamp >= begin) & (column.timestamp < end)
    averages = (
        _averages(table, column, AVERAGE_S, begin)
        .where(within, column.step_s.in_((0, AVERAGE_S)))
        .having(func.min(column.step_s) == 0)
    )
    names = [each.name for each in table.columns]
    insert = database.upsert(table).from_select(names, averages)
    return insert, delete(table).where(within, column.step_s == 0)


def _delete(table: Table) -> Executable:
    old = table.c.timestamp < bindparam("end", type_=Double)
    return delete(table).where(table.c.step_s == AVERAGE_S, old)


def _averages(
    table: Table, rows: Columns, step_s: int, begin: ColumnElement[Any]
) -> Select[Any]:
    """One row for all of `rows` that belong to one machine or card."""
    length = func.max(rows.step_s)
    owner = {key: rows[key] for key in _KEYS if key in rows}
    keys: dict[str, ColumnElement[Any]] = {
        # A row of a longer span than was asked for stays what it is.
        "step_s": case((length > step_s, length), else_=step_s),
        "timestamp": begin,
        **owner,
    }
    names = [column.name for column in table.columns]
    values = [(keys.get(name), name) for name in names]
    return select(
        *(
            (_combined(name, rows) if key is None else key).label(name)
            for key, name in values
        )
    ).group_by(*owner.values())


def _combined(name: str, rows: Columns) -> ColumnElement[Any]:
    """What becomes of the values of one field."""
    column = rows[name]
    if name in _SUMS:
        return cast(func.sum(column), column.type)
    if name in _ALIKE:
        return func.max(column)
    if name in _OF_A_MOMENT:
        return null()
    for kind, extreme in (("_min_", func.min), ("_max_", func.max)):
        if kind in name:
            return extreme(func.coalesce(column, rows[name.replace(kind, "_")]))
    known = case((column.is_not(None), rows.samples))
    total = func.sum(cast(column, Double) * rows.samples)
    mean = total / cast(func.sum(known), Double)
    # PostgreSQL rounds where SQLite cuts.
    return cast(func.round(mean), column.type) if _is_whole(column) else mean


def _is_whole(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, BigInteger)
