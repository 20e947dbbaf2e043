"""Something that only one process may do, and another one when that has died."""

from __future__ import annotations

import os
import socket
import weakref
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from agentfarm.store._file_lock import open_lock, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from agentfarm.errors import StoreError

    Failure = Callable[[str, Exception], StoreError]

__all__ = ["AdvisoryClaim", "Claim", "FileClaim"]

# Any number, the same in every process; the other half of the key is the name's.
_CLAIMS = 0x4167666D


class Claim(Protocol):
    """The right to do something alone, as long as this process lives and keeps it.

    It is used by one thread at a time.
    """

    def take(self) -> bool:
        """Take it if nobody else has it, without waiting; whether it is held now.

        Raises:
            StoreError: The database cannot be reached, or its folder not be written.
        """

    def held(self) -> bool:
        """Whether it is still this one's: a connection may break meanwhile."""

    def release(self) -> None:
        """Let others have it."""


class FileClaim:
    """A lock on a file, which the kernel frees when its holder dies.

    Args:
        path: The lock file, made where it is missing, and never removed.
        failure: Makes the error for people.
    """

    def __init__(self, path: Path, failure: Failure) -> None:
        self._path = path
        self._failure = failure
        self._descriptor: int | None = None
        # A forked child shares the lock and would keep it when its parent dies.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _release(this()))

    def take(self) -> bool:
        if self.held():
            return True
        self.release()
        try:
            descriptor = open_lock(self._path)
        except OSError as error:
            raise self._failure("lock", error) from error
        if try_lock(descriptor):
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return self.held()

    def held(self) -> bool:
        if self._descriptor is None:
            return False
        # Whoever finds no file makes a new one, and locks that.
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        return False

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class AdvisoryClaim:
    """A lock of a PostgreSQL server, which frees it when the connection ends.

    Args:
        engine: Where the connection comes from that holds it.
        name: What for; another machine's claim of the same name is another one.
        failure: Makes the error for people.
    """

    def __init__(self, engine: Engine, name: str, failure: Failure) -> None:
        self._engine = engine
        self._failure = failure
        self._name = f"{name}@{socket.gethostname()}"
        self._connection: Connection | None = None

    def take(self) -> bool:
        if self.held():
            return True
        try:
            # Outside of a transaction: one that stays open would hinder vacuuming.
            connection = self._engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
        except SQLAlchemyError as error:
            raise self._failure("lock", error) from error
        try:
            lock = text("SELECT pg_try_advisory_lock(:area, :key)")
            key = {"area": _CLAIMS, "key": self._key(connection)}
            if connection.scalar(lock, key):
                self._connection = connection
        except SQLAlchemyError as error:
            raise self._failure("lock", error) from error
        finally:
            if self._connection is None:
                connection.close()
        return self._connection is not None

    def held(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.scalar(text("SELECT 1"))
        except SQLAlchemyError:
            self.release()
        return self._connection is not None

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Its end frees the lock, whatever state the connection is in.
            connection.invalidate()
            connection.close()

    def _key(self, connection: Connection) -> int:
        """A number for the name, of this schema only."""
        schema = connection.scalar(text("SELECT current_schema()"))
        number = zlib.crc32(f"{schema}/{self._name}".encode())
        return number - (1 << 31)  # as PostgreSQL's integers go


def _release(claim: FileClaim | None) -> None:
    if claim is not None:
        claim.release()
