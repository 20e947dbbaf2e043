"""What brings a database of an older version to the next one.

Each function states its tables itself: those of the newest version change, and what
was published must do the same for ever.
"""

from __future__ import annotations

from collections.abc import Callable

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


# The first one leads from version 1 to version 2, and so on.
MIGRATIONS: tuple[Migration, ...] = (_add_workflows,)
