"""The schema's version: created once, migrated forward, never guessed.

Version 1 is the first one published. To change a table, change its record, add a
function to `_migrations` that brings an older database to the new shape, and test it
on a database of the older version. Published functions are never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from agentfarm.errors import StoreError
from agentfarm.store._migrations import MIGRATIONS, Migration
from agentfarm.store._tables import META, METADATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentfarm.store._database import Database

__all__ = ["MIGRATIONS", "Migration", "prepare"]


def prepare(
    database: Database,
    *,
    read_only: bool,
    wait_s: float,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> None:
    """Bring a database to the newest version, or refuse to touch it.

    All changes are one transaction: they happen wholly or not at all, and once,
    however many processes open the database at the same time.

    Raises:
        StoreError: It is damaged, somebody else's, or of a newer version; or it
            would have to change, but was opened for reading only.
    """
    newest = 1 + len(migrations)
    database.check(read_only=read_only)
    try:
        # This read leaves the file as it is, so that what we refuse is unaltered.
        version = database.read(lambda connection: _version(connection, database))
        _refuse_newer(version, newest, database)
        if read_only:
            _refuse_older(version, newest, database)
            return
        database.open_for_writing(wait_s=wait_s)
        # Again, as a writer: this shows whether the folder allows for one.
        version = database.read(lambda connection: _version(connection, database))
        if version != newest:
            with database.write() as connection:
                database.lock_schema(connection)
                _upgrade(connection, database, migrations)
    except SQLAlchemyError as error:
        raise database.failure("open", error) from error


def _version(connection: Connection, database: Database) -> int | None:
    """The version, or None where there are no tables yet."""
    names = set(inspect(connection).get_table_names())
    if META.name not in names:
        if database.is_foreign(names):
            raise _foreign(database)
        return None
    columns = {column["name"] for column in inspect(connection).get_columns(META.name)}
    if "schema_version" not in columns:
        raise _foreign(database)
    version = connection.scalar(select(META.c.schema_version))
    if not isinstance(version, int):
        raise _foreign(database)
    return version


def _upgrade(
    connection: Connection, database: Database, migrations: Sequence[Migration]
) -> None:
    newest = 1 + len(migrations)
    # Another process may have done it since we looked.
    version = _version(connection, database)
    _refuse_newer(version, newest, database)
    if version is None:
        METADATA.create_all(connection)
        connection.execute(META.insert(), {"schema_version": newest})
        return
    for migrate in migrations[version - 1 :]:
        migrate(connection)
    connection.execute(update(META).values(schema_version=newest))


def _foreign(database: Database) -> StoreError:
    return StoreError(
        f"The database {database.label} has tables that are not an AgentFarm Store's.",
        remedy="It was not changed. Name another one in AGENTFARM_DATABASE_URL.",
    )


def _refuse_newer(version: int | None, newest: int, database: Database) -> None:
    if version is not None and version > newest:
        raise StoreError(
            f"The Store at {database.label} has schema version {version}; this "
            f"AgentFarm knows versions up to {newest}.",
            remedy="It was not changed. Upgrade AgentFarm, or name another database "
            "in AGENTFARM_DATABASE_URL.",
        )


def _refuse_older(version: int | None, newest: int, database: Database) -> None:
    if version is None:
        raise StoreError(
            f"The Store at {database.label} has no tables yet.",
            remedy="Run an evaluation first, or check AGENTFARM_DATABASE_URL.",
        )
    if version < newest:
        raise StoreError(
            f"The Store at {database.label} has schema version {version}, older than "
            f"{newest}, and was opened for reading only.",
            remedy="Open it once for writing, which upgrades it.",
        )
