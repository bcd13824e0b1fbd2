"""What tests of predictions share: a store, a clock set by hand, a server with three models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from behind_sockets import Served, serving
from classical_models import classifier, put, regressor
from infra.artifacts.store import ArtifactStore, open_store
from migrated import open_migrated
from service.wiring import Components
from set_clock import Clock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ArtifactStore]:
    database = open_migrated(tmp_path / "ragstone.db")
    yield open_store(tmp_path / "artifacts", database)
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, parts_in: Callable[..., Components]
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("express")
    with serving(parts_in(folder, models={"keep": "inputs"})) as found:
        store = found.components.artifacts
        put(store, classifier(), folder / "0")
        put(store, classifier(2, labels=(0, 1, 2)), folder / "1", name="grade")
        put(store, regressor(), folder / "2", name="price")
        found.load("churn", "grade", "price")
        yield found
