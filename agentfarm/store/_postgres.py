"""The Store in a PostgreSQL database, for many machines."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agentfarm.errors import StoreError
from agentfarm.store._claims import AdvisoryClaim
from agentfarm.store._database import add_upsert, dump_json
from agentfarm.store._tables import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Table
    from sqlalchemy.sql.dml import Insert

__all__ = ["PostgresDatabase"]

T = TypeVar("T")

_CONNECT_ARGS = {
    "application_name": "agentfarm",
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "tcp_user_timeout": "15000",
}
_SECRETS = ("password", "sslpassword")
_SCHEMA_LOCK = 0x4167656E74  # any number, the same in every process

# SQLSTATE classes after which the same statement may succeed: connection, rollback,
# resources, lock, intervention by the operator, system; and a standby's 25006.
_TRANSIENT = ("08", "40", "53", "55", "57", "58", "25006")


class PostgresDatabase:
    """A PostgreSQL database; see `Database` for what each method promises."""

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):
            raise StoreError(
                "The Store's PostgreSQL URL cannot be understood.",
                remedy="Write postgresql+psycopg://user:password@host:5432/database, "
                "with special characters of the password percent-encoded.",
            ) from None
        shown = self._url.difference_update_query(_SECRETS)
        self.label = shown.render_as_string(hide_password=True)
        self._wait_s = 5.0
        try:
            self._engine = self._make_engine()
        except ModuleNotFoundError:
            raise StoreError(
                f"The Store at {self.label} needs psycopg, which is not installed.",
                remedy="Install it: pip install 'agentfarm[distributed]'.",
            ) from None

    def check(self, *, read_only: bool) -> None:
        del read_only  # a server's database is never created here
        try:
            encoding = self.read(
                lambda connection: connection.scalar(text("SHOW server_encoding"))
            )
        except DBAPIError as error:
            raise self.failure("open", error) from error
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise StoreError(
                f"The database of {self.label} is encoded in {encoding}, which cannot "
                "hold every text.",
                remedy="Create it with: CREATE DATABASE … ENCODING 'UTF8' "
                "TEMPLATE template0.",
            )

    def is_foreign(self, tables: set[str]) -> bool:
        # Other programs may share the database, but not our names.
        return not tables.isdisjoint(METADATA.tables)

    def open_for_writing(self, *, wait_s: float) -> None:
        self._wait_s = wait_s
        self._engine.dispose()  # connections of `check` have another lock timeout

    def read(self, query: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return query(connection.execution_options(postgresql_readonly=True))

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK}
        )

    def upsert(self, table: Table) -> Insert:
        return cast("Insert", add_upsert(insert, table))

    def claim(self, name: str) -> AdvisoryClaim:
        return AdvisoryClaim(self._engine, name, self.failure)

    def is_transient(self, error: Exception) -> bool:
        if isinstance(error, PoolTimeoutError):
            return True
        if not isinstance(error, DBAPIError):
            return False
        state = getattr(error.orig, "sqlstate", None)
        if state is None:  # the connection broke, nobody answered
            return isinstance(error, OperationalError | InterfaceError)
        return str(state).startswith(_TRANSIENT)

    def failure(self, action: str, error: Exception) -> StoreError:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        for secret in (self._url.password, *map(self._url.query.get, _SECRETS)):
            if secret:
                # As a word: a short password would turn up inside other words.
                word = rf"(?<!\w){re.escape(str(secret))}(?!\w)"
                reason = re.sub(word, "***", reason)
        return StoreError(
            f"Cannot {action} the Store at {self.label}: {reason.rstrip('.?')}.",
            remedy="Check that the server runs, and host, port, user, password and "
            "database in AGENTFARM_DATABASE_URL."
            if self.is_transient(error)
            else "Check what this user may do in that database.",
        )

    def close(self) -> None:
        self._engine.dispose()

    def _make_engine(self) -> Engine:
        connect_args = {
            name: value
            for name, value in _CONNECT_ARGS.items()
            if name not in self._url.query
        }
        engine = create_engine(
            self._url,
            connect_args=connect_args,
            pool_pre_ping=True,
            hide_parameters=True,
            json_serializer=dump_json,
        )

        @event.listens_for(engine, "connect")
        def limit_locks(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {int(self._wait_s * 1000)}")
            connection.commit()

        return engine
