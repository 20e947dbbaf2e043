"""What the Store needs of a database engine."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Table
    from sqlalchemy.sql.dml import Insert

    from agentfarm.errors import StoreError
    from agentfarm.store._claims import Claim

__all__ = ["Database", "add_upsert", "dump_json"]

T = TypeVar("T")

dump_json = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


class Database(Protocol):
    """One database: how to read and write it, and what its errors mean.

    Attributes:
        label: Its URL for people, without a password.
    """

    label: str

    def check(self, *, read_only: bool) -> None:
        """See that it can be reached, and create an empty one where that is asked.

        Raises:
            StoreError: It is not there, or is something else.
        """

    def is_foreign(self, tables: set[str]) -> bool:
        """Whether these tables, without ours, say that it belongs to others."""

    def open_for_writing(self, *, wait_s: float) -> None:
        """Prepare `write`; a lock is waited for at most `wait_s` seconds."""

    def read(self, query: Callable[[Connection], T]) -> T:
        """Call `query` in a transaction that sees one state and changes nothing."""

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that is committed at its end."""

    def lock_schema(self, connection: Connection) -> None:
        """Keep other processes from creating or migrating tables until commit."""

    def upsert(self, table: Table) -> Insert:
        """The statement that inserts a row or replaces the one of the same key."""

    def claim(self, name: str) -> Claim:
        """What one process of this machine may hold at a time, by its name."""

    def is_transient(self, error: Exception) -> bool:
        """Whether the same write may succeed later."""

    def failure(self, action: str, error: Exception) -> StoreError:
        """The error for people: what failed, on what, why, and the remedy."""

    def close(self) -> None:
        """Close idle connections."""


def add_upsert(insert: Any, table: Table) -> Any:
    """Make an INSERT of either dialect replace the row of the same key."""
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={
            column.name: statement.excluded[column.name]
            for column in table.columns
            if not column.primary_key
        },
    )
