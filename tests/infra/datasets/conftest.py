"""Fixtures of the datasets: an empty store of them, and files in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.artifacts.store import open_store
from infra.datasets.datasets import Datasets
from migrated import open_migrated


@pytest.fixture(scope="module")
def shared() -> Iterator[Datasets]:
    """One store for all tests of a file, which give each its own name."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_migrated(Path(folder) / "datasets.db")
        yield Datasets(open_store(f"{folder}/store", database))
        database.close()


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Datasets]:
    """An empty store."""
    database = open_migrated(tmp_path / "datasets.db")
    yield Datasets(open_store(tmp_path / "store", database))
    database.close()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes bytes or text to a file of a folder and returns its path."""

    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write
