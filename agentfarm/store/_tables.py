"""Tables made from the record dataclasses, and the way of a record to its row.

A field is a column; its annotation gives the type. Where a value cannot be
stored as it is, it is replaced, so that no row is lost for one odd character,
and both engines keep the same:

- a NUL character, which PostgreSQL refuses, becomes ``␀`` (U+2400);
- a lone surrogate, which is no valid UTF-8, becomes ``�`` (U+FFFD);
- NaN is NULL, and comes back as None, or as NaN where the field cannot be None;
- inside JSON, a number that is not finite becomes null, a tuple or set a list,
  a key its text, and an object that JSON does not know its text.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from typing import get_type_hints as type_hints

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

from agentfarm.events import RequestRecord
from agentfarm.store._records import (
    GPUSampleRecord,
    HostSampleRecord,
    MemoryRecord,
    RunRecord,
    SampleRecord,
    WorkflowRecord,
    WorkflowStepRecord,
)

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

__all__ = [
    "GPU_SAMPLES",
    "HOST_SAMPLES",
    "MEMORIES",
    "META",
    "METADATA",
    "REQUESTS",
    "RUNS",
    "SAMPLES",
    "WORKFLOWS",
    "WORKFLOW_STEPS",
    "RecordTable",
]

R = TypeVar("R")
Convert = Callable[[Any], Any]

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(value: str) -> str:
    """The text with characters replaced that a database refuses."""
    if value.isascii() and "\x00" not in value:
        return value
    return _UNSTORABLE.sub(lambda hit: "␀" if hit[0] == "\x00" else "�", value)


def clean_json(value: Any) -> Any:
    """The value as JSON that both engines and every JSON reader accept."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {clean_text(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean_json(item) for item in value]
    return clean_text(str(value))


def _keep(value: Any) -> Any:
    return value


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """How values of one annotation are stored; NULL is handled by the table."""

    type: Callable[[], TypeEngine[Any]]
    dump: Convert
    missing: Any = None


_KINDS: dict[Any, _Kind] = {
    str: _Kind(type=Text, dump=clean_text),
    int: _Kind(type=BigInteger, dump=_keep),
    float: _Kind(type=Double, dump=_number, missing=math.nan),
    bool: _Kind(type=Boolean, dump=_keep),
    Mapping: _Kind(type=JSON, dump=clean_json),
}


def _kind(annotation: Any) -> tuple[_Kind, bool]:
    """The kind of an annotation, and whether None is among its values."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        rest = [item for item in get_args(annotation) if item is not NoneType]
        if len(rest) == 1:
            return _kind(rest[0])[0], True
    if origin is Literal:
        return _KINDS[str], False
    found = _KINDS.get(origin or annotation)
    if found is None:
        raise TypeError(f"No column type is known for the annotation {annotation!r}.")
    return found, False


class RecordTable(Generic[R]):
    """One table and its record class; each field of the class is a column.

    Args:
        name: The table's name.
        record: A dataclass whose first fields are the primary key.
        keys: How many fields that are.
        indexes: Groups of columns that queries search or sort by.
        clustered: SQLite keeps the rows in the order of the key, and no other copy
            of it: for tables that are searched by their key alone.
    """

    def __init__(
        self,
        name: str,
        record: type[R],
        metadata: MetaData,
        *,
        keys: int = 1,
        indexes: tuple[tuple[str, ...], ...] = (),
        clustered: bool = False,
    ) -> None:
        self.record = record
        hints = type_hints(record)
        names = [item.name for item in fields(record)]  # type: ignore[arg-type]
        kinds = {item: _kind(hints[item]) for item in names}
        self.table = Table(
            name,
            metadata,
            *(
                # NaN is stored as NULL, so a number outside the key may be NULL.
                Column(
                    item,
                    kind.type(),
                    primary_key=item in names[:keys],
                    nullable=item not in names[:keys]
                    and (optional or isinstance(kind.missing, float)),
                )
                for item, (kind, optional) in kinds.items()
            ),
            *(Index(f"ix_{name}_{'_'.join(group)}", *group) for group in indexes),
            sqlite_with_rowid=not clustered,
        )
        self._dumps = [(item, kind.dump) for item, (kind, _) in kinds.items()]
        self._missing = {
            item: kind.missing
            for item, (kind, optional) in kinds.items()
            if not optional and kind.missing is not None
        }

    def dump(self, record: R) -> dict[str, Any]:
        """The row of a record."""
        row = {}
        for name, dump in self._dumps:
            value = getattr(record, name)
            row[name] = None if value is None else dump(value)
        return row

    def load(self, values: dict[str, Any]) -> R:
        """The record of a row."""
        for name, missing in self._missing.items():
            if values[name] is None:
                values[name] = missing
        return self.record(**values)


METADATA = MetaData()
META = Table("meta", METADATA, Column("schema_version", Integer, nullable=False))
RUNS = RecordTable("runs", RunRecord, METADATA)
SAMPLES = RecordTable(
    "samples", SampleRecord, METADATA, indexes=(("run_id", "started_at"),)
)
REQUESTS = RecordTable(
    "requests", RequestRecord, METADATA, indexes=(("run_id",), ("started_at",))
)
WORKFLOWS = RecordTable("workflows", WorkflowRecord, METADATA)
WORKFLOW_STEPS = RecordTable("workflow_steps", WorkflowStepRecord, METADATA, keys=2)
MEMORIES = RecordTable(
    "memories", MemoryRecord, METADATA, indexes=(("project", "created_at"),)
)
# Times first: what is asked for, averaged and given up is a span of time.
GPU_SAMPLES = RecordTable(
    "gpu_samples", GPUSampleRecord, METADATA, keys=4, clustered=True
)
HOST_SAMPLES = RecordTable(
    "host_samples", HostSampleRecord, METADATA, keys=3, clustered=True
)
