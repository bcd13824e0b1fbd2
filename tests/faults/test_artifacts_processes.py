"""Many processes on one store: nothing that lives is lost, whoever collects or dies meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Row, select

from infra.artifacts.contents import load, objects
from infra.artifacts.folder import Folder
from infra.artifacts.gc import Policy
from infra.artifacts.publishing import Surroundings
from infra.artifacts.storage import key_of
from infra.artifacts.store import ArtifactStore
from infra.artifacts.tables import gc_run
from infra.database.engine import Database
from waiting import until

WORKER = Path(__file__).parent / "artifacts_worker.py"
PROCESSES = 8
ROUNDS = 20
ROOMS = ("blobs", "packs", "manifests", "trash")


def _start(folder: Path, url: str, seed: int, rounds: int = ROUNDS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(folder), url, str(seed), str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _verify_all(store: ArtifactStore) -> int:
    count = 0
    for reference in store.names():
        for version in store.versions(f"{reference.kind}/{reference.name}"):
            report = store.verify(str(version.reference))
            assert report.sound, report
            count += 1
    return count


def test_eight_processes_putting_and_collecting_at_once_lose_nothing(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    store = ArtifactStore(Folder(tmp_path / "store"), database)
    workers = [_start(tmp_path, database_url, seed) for seed in range(PROCESSES)]
    for seed, worker in enumerate(workers):
        out, errors = worker.communicate(timeout=500)
        assert worker.returncode == 0, errors
        for reference, files in json.loads(out).items():
            assert reference.startswith(f"dataset/worker{seed}@")
            for path, word in files.items():
                with store.open(reference, path) as reader:
                    assert reader.read(1) == word.encode()

    assert _verify_all(store) == PROCESSES * 2
    assert any(row.purged for row in _runs(database))


@pytest.mark.parametrize("waves", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_writers_and_collectors_leave_only_garbage(
    database: Database, database_url: str, tmp_path: Path, waves: int
) -> None:
    chance = random.Random(5)
    store = ArtifactStore(Folder(tmp_path / "store"), database)
    for wave in range(waves):
        seeds = [100 * wave + seed for seed in range(3)]
        workers = [_start(tmp_path, database_url, seed, rounds=1000) for seed in seeds]
        begun = {f"worker{seed}" for seed in seeds}
        until(lambda begun=begun: begun <= {each.name for each in store.names()})
        time.sleep(2 * chance.random())
        for worker in workers:
            worker.kill()
            worker.communicate()
    before = _verify_all(store)

    later = Surroundings(clock=lambda: datetime.now(UTC) + timedelta(days=3))
    store = ArtifactStore(Folder(tmp_path / "store"), database, later)
    for _ in range(2):
        store.gc(Policy(grace=timedelta(0), trash=timedelta(0)))
    assert before > 0
    assert _verify_all(store) == before
    assert not list(store.storage.scratch.iterdir())
    assert {item.key for room in ROOMS for item in store.storage.list(room)} == _needed(store)


def _needed(store: ArtifactStore) -> set[str]:
    """Every object that a living version refers to."""
    keys: set[str] = set()
    for reference in store.names():
        for version in store.versions(f"{reference.kind}/{reference.name}"):
            digest = version.reference.digest
            keys |= {key_of("manifests", digest), *objects(load(store.storage, digest))}
    return keys


def _runs(database: Database) -> list[Row]:
    with database.read() as connection:
        return list(connection.execute(select(gc_run)))
