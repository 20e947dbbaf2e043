"""The choice of the database engine by URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agentfarm.errors import StoreError

if TYPE_CHECKING:
    from agentfarm.store._database import Database

__all__ = ["database_at"]

_REMEDY = (
    "Use sqlite:////absolute/path/to/file.db or "
    "postgresql+psycopg://user:password@host:5432/database."
)


def database_at(url: str) -> Database:
    """Choose the engine by the URL's scheme; nothing is opened yet.

    Raises:
        StoreError: The URL names no engine that the Store knows.
    """
    # A path is taken as it stands: SQLAlchemy would decode % and cut at ?.
    if match := re.fullmatch(r"sqlite(?:\+pysqlite)?://(/.*)?", url, re.DOTALL):
        from agentfarm.store._sqlite import SqliteDatabase

        path = (match[1] or "")[1:]
        if path in ("", ":memory:"):
            raise StoreError(
                f"A Store cannot be kept in memory ({url}): other processes and "
                "threads could not see it.",
                remedy="Name a file: sqlite:////absolute/path/to/file.db.",
            )
        return SqliteDatabase(path)
    if re.match(r"postgres(ql)?(\+psycopg)?://", url):
        from agentfarm.store._postgres import PostgresDatabase

        return PostgresDatabase(url)
    scheme = re.match(r"[A-Za-z0-9+]+(?=://)", url)
    # Nothing of a malformed URL is repeated: a password may stand anywhere in it.
    raise StoreError(
        f"The Store knows no database for {scheme[0]}:// URLs."
        if scheme
        else "The Store's database_url is not a URL.",
        remedy=_REMEDY,
    )
