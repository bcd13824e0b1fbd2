"""A tracker on an empty database, and the environment read once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.database.engine import Database
from infra.tracking.environment import Environment, read_environment
from infra.tracking.tracker import Recording, Tracker
from migrated import open_migrated


@pytest.fixture(scope="session")
def recording() -> Recording:
    found: Environment = read_environment()
    return Recording(environment=lambda: found)


@pytest.fixture
def tracker(database: Database, recording: Recording) -> Tracker:
    """Once with each kind of database."""
    return Tracker(database, recording=recording)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """For what does not depend on the database."""
    database = open_migrated(tmp_path / "local.db")
    yield database
    database.close()


@pytest.fixture
def local(sqlite: Database, recording: Recording) -> Tracker:
    """A tracker on SQLite."""
    return Tracker(sqlite, recording=recording)
