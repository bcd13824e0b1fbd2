"""Databases at the current schema, copied: migrating each anew would take most of its test."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from infra.database.engine import Database
from infra.database.migrate import upgrade


def put_schema(path: Path) -> Path:
    """Write an SQLite file that all migrations were run on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(_migrated())
    return path


def open_migrated(path: Path) -> Database:
    """Return a new SQLite database in a file."""
    return Database(f"sqlite:///{put_schema(path)}")


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        database = Database(f"sqlite:///{path}")
        upgrade(database)
        database.close()
        assert [each.name for each in Path(folder).iterdir()] == [path.name], "all is in one file"
        return path.read_bytes()
