"""What brings a database of an older version to the next one.

Each function states its tables itself: those of the newest version change, and what
was published must do the same for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Double,
    Index,
    MetaData,
    Table,
    Text,
)

__all__ = ["MIGRATIONS", "Migration"]

Migration = Callable[[Connection], None]


def _add_workflows(connection: Connection) -> None:
    """From 1 to 2: workflows, their steps, and what agents remember."""
    metadata = MetaData()
    Table(
        "workflows",
        metadata,
        Column("run_id", Text, primary_key=True),
        Column("task", Text, nullable=False),
        Column("workspace", Text, nullable=False),
        Column("model", Text),
        Column("status", Text, nullable=False),
        Column("started_at", Double),
        Column("finished_at", Double),
        Column("config", JSON, nullable=False),
        Column("summary", Text),
        Column("error", Text),
        Column("pid", BigInteger),
        Column("process_started_at", Double),
        Column("hostname", Text),
        Column("version", Text),
    )
    Table(
        "workflow_steps",
        metadata,
        Column("run_id", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("seq", BigInteger, nullable=False),
        Column("agent", Text, nullable=False),
        Column("status", Text, nullable=False),
        Column("started_at", Double),
        Column("finished_at", Double),
        Column("output", JSON, nullable=False),
        Column("input_tokens", BigInteger),
        Column("output_tokens", BigInteger),
    )
    Table(
        "memories",
        metadata,
        Column("memory_id", Text, primary_key=True),
        Column("project", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("text", Text, nullable=False),
        Column("created_at", Double),
        Column("metadata", JSON, nullable=False),
        Index("ix_memories_project_created_at", "project", "created_at"),
    )
    # A table of this name that is there already is somebody else's: that must fail.
    metadata.create_all(connection, checkfirst=False)


def _add_hardware(connection: Connection) -> None:
    """From 2 to 3: what GPUs and their machines did."""
    metadata = MetaData()
    _gpu_samples(metadata)
    Table(
        "host_samples",
        metadata,
        Column("step_s", BigInteger, primary_key=True),
        Column("timestamp", Double, primary_key=True),
        Column("hostname", Text, primary_key=True),
        Column("samples", BigInteger, nullable=False),
        *_columns(Double, "covered_s cpu_percent cpu_min_percent cpu_max_percent"),
        *_columns(Double, "load_1m"),
        *_columns(BigInteger, "memory_used_bytes memory_used_max_bytes"),
        *_columns(BigInteger, "memory_total_bytes disk_used_bytes disk_total_bytes"),
        *_columns(Double, "disk_read_bytes_per_s disk_write_bytes_per_s"),
        *_columns(Double, "network_received_bytes_per_s network_sent_bytes_per_s"),
        Column("error", Text),
        sqlite_with_rowid=False,
    )
    # A table of this name that is there already is somebody else's: that must fail.
    metadata.create_all(connection, checkfirst=False)


def _gpu_samples(metadata: MetaData) -> None:
    Table(
        "gpu_samples",
        metadata,
        Column("step_s", BigInteger, primary_key=True),
        Column("timestamp", Double, primary_key=True),
        Column("hostname", Text, primary_key=True),
        Column("uuid", Text, primary_key=True),
        Column("gpu_index", BigInteger, nullable=False),
        Column("vendor", Text, nullable=False),
        Column("source", Text, nullable=False),
        *_columns(Text, "name driver parent"),
        Column("samples", BigInteger, nullable=False),
        *_columns(Double, "covered_s"),
        *_columns(Double, "temperature_c temperature_min_c temperature_max_c"),
        *_columns(Double, "junction_temperature_c"),
        *_columns(Double, "junction_temperature_min_c junction_temperature_max_c"),
        *_columns(Double, "memory_temperature_c"),
        *_columns(Double, "memory_temperature_min_c memory_temperature_max_c"),
        *_columns(Double, "temperature_limit_c"),
        *_columns(BigInteger, "vram_used_bytes vram_used_max_bytes vram_total_bytes"),
        *_columns(Double, "power_w power_min_w power_max_w power_limit_w"),
        *_columns(Double, "utilization_percent"),
        *_columns(Double, "utilization_min_percent utilization_max_percent"),
        *_columns(Double, "memory_utilization_percent core_clock_mhz"),
        *_columns(Double, "memory_clock_mhz fan_percent fan_rpm"),
        *_columns(Double, "throttled_share thermal_share"),
        *_columns(Text, "throttle_reasons error"),
        sqlite_with_rowid=False,
    )


def _columns(
    kind: type[Double[float] | BigInteger | Text], names: str
) -> list[Column[Any]]:
    return [Column(name, kind) for name in names.split()]


# The first one leads from version 1 to version 2, and so on.
MIGRATIONS: tuple[Migration, ...] = (_add_workflows, _add_hardware)
