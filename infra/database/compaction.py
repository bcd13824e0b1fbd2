"""Compaction of the database: no file of it holds what was deleted any more."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import text

from infra.database.engine import Database, storage_errors

WAIT_SECONDS = 10.0
"""For writers that are at work, and for readers that hold on to what was."""
_POLL_SECONDS = 0.05


def compact(database: Database, *, wait_seconds: float = WAIT_SECONDS) -> list[str]:
    """Write the database anew without the pages of what was deleted; readers go on meanwhile.

    Returns:
        What could not be done, in words; empty if nothing is left to do.

    Raises:
        StorageFailed: the disk is full, or another process writes all the time; nothing is lost.
    """
    if not database.is_sqlite:
        with database.maintenance() as connection:
            connection.execute(text("VACUUM"))
        return [
            "PostgreSQL keeps the bytes of deleted rows until it needs their room; VACUUM FULL, its"
            " log and its backups are for whoever runs it"
        ]
    with database.maintenance() as connection, storage_errors():
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA busy_timeout={int(wait_seconds * 1000)}")
        try:
            driver.execute("VACUUM")
            return _truncate_log(driver, deadline=time.monotonic() + wait_seconds)
        finally:
            driver.execute(f"PRAGMA busy_timeout={database.busy_seconds * 1000}")


def _truncate_log(driver: Any, *, deadline: float) -> list[str]:
    """Copy the write-ahead log into the database and cut it to nothing."""
    while True:
        [(busy, _, _)] = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if not busy:
            return []
        if time.monotonic() > deadline:
            return ["the write-ahead log is in use by another process; compact again later"]
        time.sleep(_POLL_SECONDS)
