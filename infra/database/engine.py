"""Read and write transactions, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from infra.errors import MissingDependency, StorageFailed

BUSY_SECONDS = 60
"""How long a writer waits for another before it gives up."""
STATEMENTS = 128
"""That a connection of SQLite keeps parsed."""
LARGE_STATEMENTS = 32
"""Of those connections that wait otherwise, which write what `insert_new` does: of 0.4 MiB each."""


class Database:
    """Transactions on one database; safe to share between threads, not between forks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self.busy_seconds = BUSY_SECONDS
        self._engine = _open(url, busy_seconds=self.busy_seconds)
        self._tuned: dict[tuple[bool, float], Engine] = {}
        """Of SQLite, whose connections are told how to wait only when they are opened."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot; whatever it did is rolled back at the end."""
        with storage_errors(), self._engine.connect() as connection:
            if not self.is_sqlite:  # where a transaction is a snapshot only when asked
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(
        self,
        *,
        lock: int | None = None,
        durable: bool = True,
        patience_seconds: float | None = None,
    ) -> Iterator[Connection]:
        """One transaction, durable when the block ends, undone if it raises.

        Args:
            lock: writers with the same number wait for each other until commit, so that what they
                append commits in order. SQLite has one writer anyway.
            durable: wait for the disk. Without, a power cut may undo it, though never without
                whatever was committed after it; the death of a process undoes nothing.
            patience_seconds: how long other writers are waited for; None is `busy_seconds`.
        """
        engine = self._waiting(durable, patience_seconds)
        with storage_errors(), engine.connect() as connection:
            connection = connection.execution_options(ragstone_write=True)
            with connection.begin():
                if not durable and not self.is_sqlite:
                    connection.execute(text("SET LOCAL synchronous_commit TO off"))
                if patience_seconds is not None and not self.is_sqlite:
                    wait = f"SET LOCAL lock_timeout TO {round(patience_seconds * 1000)}"
                    connection.execute(text(wait))
                if lock is not None:
                    self.lock(connection, lock)
                yield connection

    @contextmanager
    def maintenance(self) -> Iterator[Connection]:
        """A connection without a transaction, for what must not be in one."""
        with storage_errors(), self._engine.connect() as connection:
            # SQLite's connections are so already; to say it again would undo it afterwards.
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    def lock(self, connection: Connection, key: int, *, shared: bool = False) -> None:
        """Within a write transaction, wait for others that hold `key`; released by its end."""
        if not self.is_sqlite:  # whose one writer holds every lock there is
            function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
            connection.execute(text(f"SELECT {function}(:key)"), {"key": key})

    def close(self) -> None:
        for engine in (self._engine, *self._tuned.values()):
            engine.dispose()

    @property
    def engine(self) -> Engine:
        """For migrations only; everything else goes through `read` and `write`."""
        return self._engine

    def _waiting(self, durable: bool, patience_seconds: float | None) -> Engine:
        """Return the one whose connections wait so long, for the disk and for others."""
        if not self.is_sqlite or (durable and patience_seconds is None):
            return self._engine
        how = (durable, self.busy_seconds if patience_seconds is None else patience_seconds)
        if how not in self._tuned:
            made = _open(self.url, busy_seconds=how[1], durable=how[0], statements=LARGE_STATEMENTS)
            self._tuned.setdefault(how, made)
        return self._tuned[how]


def _open(
    url: str, *, busy_seconds: float, durable: bool = True, statements: int = STATEMENTS
) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        try:
            return create_engine(
                url,
                pool_pre_ping=True,
                pool_size=8,
                max_overflow=24,
                isolation_level="READ COMMITTED",
                connect_args={"connect_timeout": 10},
            )
        except ModuleNotFoundError as error:
            raise MissingDependency("psycopg", extra="postgres") from error
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        poolclass=QueuePool if os.name == "posix" else NullPool,
        pool_size=8,
        max_overflow=24,
        connect_args={
            "timeout": busy_seconds,
            "check_same_thread": False,
            "cached_statements": statements,
        },
    )
    event.listen(engine, "connect", partial(_prepare_sqlite, durable=durable))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any, *, durable: bool) -> None:
    # Transactions are begun by hand below: the driver begins too late for a snapshot.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    cursor.execute("PRAGMA foreign_keys=ON")
    # Deleted text is overwritten with zeros, so that a byte scan of the file does not find it.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: upgrading a read transaction fails instead of waiting.
    immediate = connection.get_execution_options().get("ragstone_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Tell of the database's failures as ours; also of those of the driver, used by itself."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageFailed(f"Database: {error}") from error
    except OperationalError as error:
        raise StorageFailed(f"Database: {error.orig}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StorageFailed(f"Database: connection lost: {error.orig}") from error
        if type(error) is DatabaseError:  # SQLite's words for a file that is damaged or none of its
            raise StorageFailed(f"Database: {error.orig}; restore it from a backup") from error
        raise
