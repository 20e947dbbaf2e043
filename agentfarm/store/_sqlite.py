"""The Store in a SQLite file, in write-ahead-log mode.

Many processes read while one writes. A commit is in the operating system's hands
when it returns, so it outlives a killed process; after a power cut the last commits
may be missing, and the file is still whole (``synchronous=NORMAL``).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from agentfarm.errors import StoreError
from agentfarm.store._claims import FileClaim
from agentfarm.store._database import add_upsert, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Table
    from sqlalchemy.sql.dml import Insert

__all__ = ["SqliteDatabase"]

T = TypeVar("T")

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100
_READ_WAIT_S = 5.0

# Primary result codes, the low byte of sqlite3's extended codes.
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DENIED = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_AUTH,
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TRANSIENT = _BUSY | _DENIED | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}

_LEFT_ALONE = "It was not changed. Move it away, or set AGENTFARM_DATABASE_URL."
_DAMAGED_REMEDY = (
    "Restore a copy or move it away; `sqlite3 FILE .recover` may rescue rows."
)
_DENIED_REMEDY = (
    "Check who may write the file and its folder, or set AGENTFARM_DATABASE_URL."
)


class SqliteDatabase:
    """A SQLite file; see `Database` for what each method promises."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.label = f"sqlite:///{self.path}"
        self._engine: Engine | None = None  # None until it is opened for writing
        self._writing: Engine | None = None

    def check(self, *, read_only: bool) -> None:
        header = self._header()
        if header and not header.startswith(_MAGIC):
            raise StoreError(
                f"{self.path} is not a SQLite database.", remedy=_LEFT_ALONE
            )
        if header:
            return
        if read_only:
            raise StoreError(
                f"There is no Store at {self.label} yet.",
                remedy="Run an evaluation first, or check AGENTFARM_DATABASE_URL.",
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._ensure_wal("rwc")
        except (OSError, sqlite3.Error) as error:
            raise self.failure("create", error) from error

    def is_foreign(self, tables: set[str]) -> bool:
        return bool(tables)

    def open_for_writing(self, *, wait_s: float) -> None:
        # SQLite would open it for reading only, and say so at the first write.
        if not os.access(self.path, os.W_OK):
            denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise self.failure("write to", denied)
        header = self._header()
        if not header or not _is_wal(header):
            self._ensure_wal("rw")
        self._engine = _engine(lambda: self._connect("mode=rw", wait_s), QueuePool)
        self._writing = self._engine.execution_options(agentfarm_write=True)

    def read(self, query: Callable[[Connection], T]) -> T:
        if self._engine is not None:
            with self._engine.connect() as connection:
                return query(connection)
        quiet = self._quiet_state()
        if quiet is not None:
            # SQLite would leave -wal and -shm files behind, or fail in a folder
            # that it may not write, although nobody has the file open.
            try:
                result = self._read_once("immutable=1", query)
            except DBAPIError:
                if self._quiet_state() == quiet:
                    raise
            else:
                if self._quiet_state() == quiet:
                    return result
        # A rollback journal left by a crash is played back by a writer only.
        hot = self._beside("-journal").exists()
        return self._read_once("mode=rw" if hot else "mode=ro", query)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        assert self._writing is not None, "open_for_writing comes first"  # noqa: S101 - for the type checker
        with self._writing.begin() as connection:
            yield connection

    def lock_schema(self, connection: Connection) -> None:
        del connection  # BEGIN IMMEDIATE has locked all

    def upsert(self, table: Table) -> Insert:
        return cast("Insert", add_upsert(insert, table))

    def claim(self, name: str) -> FileClaim:
        return FileClaim(self._beside(f".{name}.lock"), self.failure)

    def is_transient(self, error: Exception) -> bool:
        return _result_code(error) in _TRANSIENT

    def failure(self, action: str, error: Exception) -> StoreError:
        code = _result_code(error)
        if code in _DAMAGED:
            remedy = _DAMAGED_REMEDY
        elif code in _BUSY:
            remedy = "Another process holds a long transaction on it; end that one."
        elif code == sqlite3.SQLITE_FULL:
            remedy = "Free some space on its disk."
        elif code in _DENIED or isinstance(error, OSError):
            remedy = _DENIED_REMEDY
        else:
            remedy = None
        reason = getattr(error, "orig", None) or error
        return StoreError(
            f"Cannot {action} the Store at {self.label}: {reason}.", remedy=remedy
        )

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def _header(self) -> bytes:
        """The first bytes of the file; none where it is missing or empty."""
        try:
            with self.path.open("rb") as file:
                return file.read(_HEADER_BYTES)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise self.failure("open", error) from error

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _quiet_state(self) -> tuple[int, int] | None:
        """Size and time of the file if nobody has it open, else None.

        A process that has a file in WAL mode open keeps a ``-wal`` file beside it.
        """
        if not _is_wal(self._header()) or self._beside("-wal").exists():
            return None
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def _read_once(self, mode: str, query: Callable[[Connection], T]) -> T:
        engine = _engine(lambda: self._connect(mode, _READ_WAIT_S), NullPool)
        with engine.connect() as connection:
            return query(connection)

    def _connect(self, mode: str, wait_s: float) -> sqlite3.Connection:
        """Open a connection that begins transactions only when told to.

        Without ``mode=rwc`` a file that was removed is not made anew in silence.
        """
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?{mode}",
            uri=True,
            timeout=wait_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def _ensure_wal(self, mode: str) -> None:
        """Switch to WAL mode, which creates the file where `mode` allows it.

        SQLite does not wait for a lock here, so that this has to.
        """
        deadline = time.monotonic() + _READ_WAIT_S
        while True:
            connection = self._connect(f"mode={mode}", _READ_WAIT_S)
            try:
                # A file system without shared memory keeps its old mode.
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if _result_code(error) not in _BUSY or time.monotonic() > deadline:
                    raise
            else:
                return
            finally:
                connection.close()
            time.sleep(0.01)


def _is_wal(header: bytes) -> bool:
    """Whether a file is in WAL mode: its read version, byte 19, is 2."""
    return len(header) == _HEADER_BYTES and header[19] == 2


def _result_code(error: BaseException | None) -> int | None:
    if isinstance(error, DBAPIError):
        error = error.orig
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def _engine(connect: Callable[[], Any], pool: type[NullPool | QueuePool]) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=pool,
        hide_parameters=True,
        json_serializer=dump_json,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer that begins as a reader would fail at once, not wait, when
        # another one came first.
        writes = connection.get_execution_options().get("agentfarm_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
