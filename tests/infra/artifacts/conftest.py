"""Fixtures of the artifact store: stores, a clock that is turned by hand, small trees of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.artifacts.folder import Folder
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from migrated import open_migrated

LARGE = 300 * 1024
"""Bytes; a file of this size is a blob of its own, not part of a pack."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def around(clock: Clock) -> Surroundings:
    return Surroundings(clock=clock, workers=3)


@pytest.fixture
def store(tmp_path: Path, database: Database, around: Surroundings) -> ArtifactStore:
    """An empty store in a folder, once with each kind of database."""
    return ArtifactStore(Folder(tmp_path / "store"), database, around)


@pytest.fixture
def local(tmp_path: Path, around: Surroundings) -> Iterator[ArtifactStore]:
    """An empty store in a folder with SQLite, for what does not depend on the database."""
    database = open_migrated(tmp_path / "local.db")
    yield ArtifactStore(Folder(tmp_path / "local"), database, around)
    database.close()


@pytest.fixture
def other(tmp_path: Path, around: Surroundings) -> Iterator[ArtifactStore]:
    """A second store with a database of its own."""
    database = open_migrated(tmp_path / "other.db")
    yield ArtifactStore(Folder(tmp_path / "other"), database, around)
    database.close()


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes files `{path: bytes}` below a new folder and returns it."""

    def write(files: dict[str, bytes], name: str = "source") -> Path:
        folder = tmp_path / name
        for path, data in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        folder.mkdir(exist_ok=True)
        return folder

    return write


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, `{path: bytes}`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def read() -> Callable[[Path], dict[str, bytes]]:
    return read_tree
