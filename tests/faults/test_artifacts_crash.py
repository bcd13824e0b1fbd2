"""A crash, a power cut or a full disk at every single file-system call of the artifact store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.artifacts.failing import Crash, FailingFiles
from infra.artifacts.files import Files
from infra.artifacts.folder import Folder
from infra.artifacts.gc import Policy
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from infra.errors import StorageFailed
from migrated import put_schema

NOW = Policy(grace=timedelta(0), trash=timedelta(0))
LARGE = os.urandom(300 * 1024)
OLD = {"kept": LARGE, "small": b"s" * 100, "sub/more": b"m" * 100}
NEW = {"kept": LARGE, "small": b"t" * 100, "added": LARGE[::-1]}
FEWEST_CALLS = {"put": 25, "writer": 20, "checkout": 5, "collect": 3, "sync": 20, "repair": 6}


class World:
    """Two stores in one folder, opened anew after every crash; the clock stands still by itself."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self.later = timedelta(0)
        for name in ("near", "far"):
            (folder / name).mkdir(parents=True)
            shutil.copy(template, folder / f"{name}.db")
        self.databases = {
            name: Database(f"sqlite:///{folder / name}.db") for name in ("near", "far")
        }
        for name, files in (("old", OLD), ("new", NEW)):
            for path, data in files.items():
                target = folder / name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)

    def open(self, name: str = "near", files: Files | None = None) -> ArtifactStore:
        files = files or Files()
        around = Surroundings(clock=lambda: datetime.now(UTC) + self.later, files=files, workers=1)
        return ArtifactStore(Folder(self.folder / name, files), self.databases[name], around)

    def close(self) -> None:
        for database in self.databases.values():
            database.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_schema(tmp_path_factory.mktemp("template") / "empty.db")


@pytest.fixture
def worlds(tmp_path: Path, template: Path) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def make() -> World:
        world = World(tmp_path / f"world{len(made)}", template)
        made.append(world)
        world.open().put(world.folder / "old", "dataset/d")
        world.open().tag("dataset/d@v1", "production")
        world.open("far")
        return world

    yield make
    for world in made:
        world.close()


def _put(world: World, store: ArtifactStore) -> None:
    store.put(world.folder / "new", "dataset/d")


def _write(_world: World, store: ArtifactStore) -> None:
    with store.writer("dataset/d") as draft:
        for path, data in NEW.items():
            (draft.folder / path).write_bytes(data)


def _check_out(world: World, store: ArtifactStore) -> None:
    store.checkout("dataset/d@v1", world.folder / "out", mode="copy")


def _collect(_world: World, store: ArtifactStore) -> None:
    store.gc(NOW)


def _sync(world: World, store: ArtifactStore) -> None:
    # The far store fails: it is the one that is written to.
    world.open().sync("dataset/d", world.open("far", store._around.files))


def _repair(world: World, store: ArtifactStore) -> None:
    store.repair("dataset/d", world.open("far").storage)


def _prepare(world: World, operation: str) -> None:
    if operation == "collect":
        world.open().put(world.folder / "new", "dataset/other")
        world.open().expire("dataset/other@v1")
        world.later += timedelta(days=2)
    if operation == "repair":
        world.open().sync("dataset/d", world.open("far"))
        for room in ("packs", "blobs"):
            path = sorted((world.folder / "near").glob(f"{room}/sha256/??/*"))[0]
            path.chmod(0o600)
            data = path.read_bytes()
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


OPERATIONS: dict[str, Callable[[World, ArtifactStore], None]] = {
    "put": _put,
    "writer": _write,
    "checkout": _check_out,
    "collect": _collect,
    "sync": _sync,
    "repair": _repair,
}


def _calls(worlds: Callable[[], World], operation: str) -> int:
    world = worlds()
    _prepare(world, operation)
    files = FailingFiles()
    OPERATIONS[operation](world, world.open(files=files))
    return files.changes


def _check(world: World, operation: str) -> None:
    """What was there is whole, nothing is there by half, and only garbage is left over."""
    store = world.open()
    damaged = operation == "repair" and not store.verify("dataset/d@v1").sound
    if damaged:
        assert store.repair("dataset/d", world.open("far").storage).sound
    for name in ("near", "far"):
        there = world.open(name)
        for reference in there.names():
            for version in there.versions(f"{reference.kind}/{reference.name}"):
                assert there.verify(str(version.reference)).sound, (name, version)
    assert store.find("dataset/d@production").version == 1
    assert not (world.folder / "out").exists() or operation == "checkout"
    if (world.folder / "out").exists():
        assert (world.folder / "out" / "small").read_bytes() == OLD["small"]


def _recover(world: World) -> None:
    """The same work succeeds afterwards, and the collector clears all that was left."""
    store = world.open()
    _put(world, store)
    out = store.checkout("dataset/d", world.folder / "again")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == NEW
    for _ in range(2):
        world.later += timedelta(days=2)
        store.gc(NOW)
    versions = store.versions("dataset/d")
    from infra.artifacts.contents import load, objects
    from infra.artifacts.storage import key_of

    needed = {key_of("manifests", version.reference.digest) for version in versions}
    for version in versions:
        needed.update(objects(load(store.storage, version.reference.digest)))
    rooms = ("blobs", "packs", "manifests", "trash", "tmp")
    assert {item.key for room in rooms for item in store.storage.list(room)} == needed


@pytest.mark.parametrize(
    ("operation", "power"),
    [("put", "stays"), ("checkout", "stays"), *((operation, "goes") for operation in OPERATIONS)],
)
def test_crash_at_every_call_leaves_only_garbage(
    worlds: Callable[[], World], operation: str, power: str
) -> None:
    calls = _calls(worlds, operation)
    assert calls >= FEWEST_CALLS[operation]
    for at in range(1, calls + 1):
        world = worlds()
        _prepare(world, operation)
        files = FailingFiles(at)
        with pytest.raises(Crash):
            OPERATIONS[operation](world, world.open(files=files))
        if power == "goes":
            files.lose_power()
        _check(world, operation)
        if at % 5 == 0 and operation in {"put", "writer", "collect"}:
            _recover(world)
        world.close()


@pytest.mark.parametrize("operation", ["put", "writer", "checkout", "sync", "repair"])
def test_disk_that_is_full_at_any_call_fails_in_words_and_shows_nothing(
    worlds: Callable[[], World], operation: str
) -> None:
    calls = _calls(worlds, operation)
    messages: list[str] = []
    for at in range(1, calls + 1):
        world = worlds()
        _prepare(world, operation)
        try:
            OPERATIONS[operation](world, world.open(files=FailingFiles.full_disk(at)))
        except StorageFailed as error:
            messages.append(error.message)
        _check(world, operation)
        world.close()
    assert len(messages) >= calls / 2
    assert all("No space left" in message for message in messages)
