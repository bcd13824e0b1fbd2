"""What tests of predictions share: a store, and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.artifacts.store import ArtifactStore, open_store
from migrated import open_migrated
from set_clock import Clock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ArtifactStore]:
    database = open_migrated(tmp_path / "ragstone.db")
    yield open_store(tmp_path / "artifacts", database)
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()
