"""What is collected, what never is, and how long it can be fetched back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import select

from infra.artifacts import trash
from infra.artifacts.contents import load, publish
from infra.artifacts.folder import Folder
from infra.artifacts.gc import Collected, Policy
from infra.artifacts.manifest import Stored
from infra.artifacts.publishing import Made, Surroundings, Target
from infra.artifacts.storage import Item, key_of
from infra.artifacts.store import ArtifactStore
from infra.artifacts.tables import gc_run, lease
from infra.errors import Conflict, NotFound, StorageFailed

Tree = Callable[..., Path]
LARGE = os.urandom(300 * 1024)
NOW = Policy(grace=timedelta(0), trash=timedelta(0))


class Clock(Protocol):
    def __call__(self) -> datetime: ...
    def forward(self, **span: float) -> None: ...


def _objects(store: ArtifactStore) -> set[str]:
    rooms = ("blobs", "packs", "manifests")
    return {item.key for room in rooms for item in store.storage.list(room)}


def _collect(store: ArtifactStore, clock: Clock, policy: Policy = NOW) -> Collected:
    clock.forward(hours=1)
    return store.gc(policy)


def test_expired_version_goes_to_the_trash_and_then_for_good(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"small": b"1", "large": LARGE}), "dataset/d")
    store.expire("dataset/d@v1")

    first = _collect(store, clock)
    assert (first.artifacts, first.trashed, first.purged) == (1, 3, 0)
    assert _objects(store) == set()
    assert len(list(store.storage.list("trash"))) == 3

    second = _collect(store, clock)
    assert (second.trashed, second.purged) == (0, 3)
    assert not list(store.storage.list("trash"))


def test_dry_run_counts_and_moves_nothing(store: ArtifactStore, tree: Tree, clock: Clock) -> None:
    store.put(tree({"small": b"1", "large": LARGE}), "dataset/d")
    store.expire("dataset/d@v1")
    before = _objects(store)

    counted = _collect(store, clock, Policy(timedelta(0), timedelta(0), dry_run=True))
    assert (counted.artifacts, counted.trashed) == (1, 3)
    assert counted.trashed_bytes > len(LARGE)
    assert _objects(store) == before
    assert _collect(store, clock).trashed == 3


def test_what_versions_aliases_and_leases_name_stays(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    for name in ("versioned", "aliased", "leased", "locked"):
        store.put(
            tree({"file": name.encode() * 100, "large": LARGE + name.encode()}, name),
            f"dataset/{name}",
        )
    store.tag("dataset/aliased", "production")
    locked = store.find("dataset/locked").digest
    with store.reading("dataset/leased"):
        for name in ("aliased", "leased", "locked"):
            store.expire(f"dataset/{name}@v1")
        clock.forward(hours=1)
        assert store.gc(NOW, roots=lambda: [locked]).artifacts == 0
    assert store.verify("dataset/aliased@production").sound
    assert store.verify("dataset/versioned").sound

    assert _collect(store, clock).artifacts == 2
    assert store.verify("dataset/aliased@production").sound


def test_objects_shared_with_a_living_artifact_stay(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"shared": LARGE, "a": b"1"}, "one"), "dataset/d")
    store.put(tree({"shared": LARGE, "a": b"1", "b": b"2"}, "two"), "dataset/d")
    store.expire("dataset/d@v1")
    _collect(store, clock)
    _collect(store, clock)

    assert store.verify("dataset/d@v2").sound


def test_young_objects_stay_until_the_grace_is_over(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"a": b"1"}), "dataset/d")
    store.expire("dataset/d@v1")

    clock.forward(hours=23)
    assert store.gc().artifacts == 0
    clock.forward(hours=2)
    assert store.gc().artifacts == 1
    clock.forward(days=6)
    assert store.gc().purged == 0
    clock.forward(days=2)
    assert store.gc().purged == 2


def test_content_put_again_while_in_the_trash_is_whole(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    source = tree({"small": b"1", "large": LARGE})
    store.put(source, "dataset/d")
    store.expire("dataset/d@v1")
    _collect(store, clock)
    store.put(source, "dataset/d")
    _collect(store, clock)

    assert store.find("dataset/d").version == 2
    assert store.verify("dataset/d").sound


def test_lineage_outlives_collected_parents(store: ArtifactStore, tree: Tree, clock: Clock) -> None:
    store.put(tree({"a": b"1"}, "raw"), "dataset/raw")
    store.put(tree({"b": b"2"}, "model"), "model/m", Made(parents=[("train", "dataset/raw")]))
    store.expire("dataset/raw@v1")
    _collect(store, clock)

    assert [edge.role for edge in store.lineage("model/m").edges] == ["train"]
    with pytest.raises(NotFound):
        store.find("dataset/raw")


def test_alias_cannot_roll_back_to_what_was_collected(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    for number in (1, 2):
        store.put(tree({"a": b"%d" % number}, f"source{number}"), "model/m")
        store.tag(f"model/m@v{number}", "production")
    store.expire("model/m@v1")
    _collect(store, clock)

    with pytest.raises(Conflict, match="was collected"):
        store.roll_back("model/m", "production")
    assert store.find("model/m@production").version == 2


def test_collecting_while_a_writer_is_at_work_takes_nothing_of_its_own(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"shared": LARGE, "old": b"1" * 100}), "dataset/d")
    store.expire("dataset/d@v1")
    clock.forward(days=1)
    with store.writer("dataset/w") as draft:
        (draft.folder / "shared").write_bytes(LARGE)
        (draft.folder / "new").write_bytes(LARGE[::-1])
        # What it is about to share is older than it is, so it goes to the trash under its feet.
        assert store.gc(NOW).trashed == 3
        assert store.gc(NOW).purged == 0
        assert (draft.folder / "new").exists()

    assert store.verify("dataset/w").sound


class Interrupted(Folder):
    """Lets something happen between two steps of a collector: when it lists a certain room."""

    def __init__(self, root: Path, room: str, happening: Callable[[], object]) -> None:
        super().__init__(root)
        self.room = room
        self.happening: Callable[[], object] | None = happening

    def list(self, prefix: str) -> Iterator[Item]:
        found = list(super().list(prefix))
        if prefix == self.room and self.happening:
            happening, self.happening = self.happening, None
            happening()
        return iter(found)


@pytest.mark.parametrize("room", ["trash", "manifests", "packs", "blobs"])
def test_content_put_again_between_two_steps_of_the_collector_is_whole(
    store: ArtifactStore, around: Surroundings, tree: Tree, clock: Clock, room: str
) -> None:
    source = tree({"small": b"1" * 100, "large": LARGE})
    store.put(source, "dataset/d")
    store.expire("dataset/d@v1")
    clock.forward(hours=1)
    storage = Interrupted(store.storage.root, room, lambda: store.put(source, "dataset/d"))
    ArtifactStore(storage, store.database, around).gc(NOW)

    assert storage.happening is None
    assert store.find("dataset/d").version == 2
    assert store.verify("dataset/d").sound


def test_version_that_comes_back_to_life_while_it_is_retired_stays(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    source = tree({"small": b"1" * 100, "large": LARGE})
    store.put(source, "dataset/d")
    store.expire("dataset/d@v1")
    clock.forward(hours=1)
    asked: list[str] = []

    def roots() -> list[str]:
        if not asked:
            asked.append(str(store.put(source, "dataset/d")))
        return []

    assert store.gc(NOW, roots=roots).trashed == 0
    assert asked == ["dataset/d@v2"]
    assert store.verify("dataset/d@v2").sound


def test_writer_fetches_back_what_was_collected_after_it_had_found_it(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    source = tree({"shared": LARGE, "small": b"1" * 100})
    digest = store.put(source, "dataset/d").digest
    store.expire("dataset/d@v1")
    clock.forward(days=1)
    with store._publisher.writing() as (writing, _):
        stored = load(store.storage, digest)
        assert store.gc(NOW).trashed == 3
        store._publisher.commit(stored, Target("dataset", "again"), lease=writing)

    assert store.verify("dataset/again").sound
    assert not list(store.storage.list("trash"))


def test_version_is_whole_though_another_writer_wrote_its_manifest_and_died(
    store: ArtifactStore, around: Surroundings, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"a": b"1" * 100, "b": b"2" * 100}), "dataset/both")
    digest = store.put(tree({"a": b"1" * 100}, "alone"), "dataset/alone").digest
    [other] = load(store.storage, store.find("dataset/both").digest).packs
    store.expire("dataset/both@v1")
    store.expire("dataset/alone@v1")
    clock.forward(hours=1)
    with store._publisher.writing() as (writing, _):
        stored = load(store.storage, digest)
        assert stored.packs != (other,)
        with store._publisher.writing():
            store.gc(NOW)
            theirs = publish(store.storage, stored.manifest, [other], {}, files=around.files)
            assert theirs.packs == (other,), "packed as they had found it before the collector came"
        store._publisher.commit(stored, Target("dataset", "again"), lease=writing)

    assert store.verify("dataset/again").sound


def test_manifest_of_a_living_version_is_not_replaced_by_a_writer_that_packs_otherwise(
    store: ArtifactStore, around: Surroundings, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"a": b"1" * 100, "b": b"2" * 100}), "dataset/both")
    digest = store.put(tree({"a": b"1" * 100}, "alone"), "dataset/alone").digest
    stored = load(store.storage, digest)
    [pack], [other] = stored.packs, load(store.storage, store.find("dataset/both").digest).packs
    assert store.storage.move(key_of("packs", pack), "trash/1/" + key_of("packs", pack))

    publish(store.storage, stored.manifest, [other], {}, files=around.files)
    assert load(store.storage, digest).packs == (pack,), "left to who holds the lock"
    with store._publisher.writing() as (writing, _):
        mine = Stored(digest, stored.manifest, (other,))
        store._publisher.commit(mine, Target("dataset", "again"), lease=writing)
    assert store.verify("dataset/again").sound


def test_what_came_back_in_other_packs_between_two_steps_of_a_collector_is_whole(
    store: ArtifactStore, around: Surroundings, tree: Tree, clock: Clock
) -> None:
    alone = tree({"a": b"1" * 100}, "alone")
    first = store.put(alone, "dataset/alone")
    clock.forward(hours=1)

    def happening() -> None:
        store.expire("dataset/alone@v1")
        store.gc(NOW)
        store.put(tree({"a": b"1" * 100, "b": b"2" * 100}), "dataset/both")
        again = store.put(tree({"a": b"1" * 100}, "again"), "dataset/both")
        assert again.digest == first.digest
        store.expire("dataset/both@v1")
        clock.forward(hours=1)
        store.gc(NOW)

    class Between(Interrupted):
        def list(self, prefix: str) -> Iterator[Item]:
            super().list(prefix)
            return Folder.list(self, prefix)  # with what is there by now

    storage = Between(store.storage.root, "packs", happening)
    clock.forward(hours=1)
    ArtifactStore(storage, store.database, around).gc(NOW)

    assert storage.happening is None
    assert store.verify("dataset/both@v2").sound


def test_collecting_needs_every_manifest_in_use(
    local: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    kept = local.put(tree({"a": b"1"}, "one"), "dataset/kept")
    local.put(tree({"b": b"2"}, "two"), "dataset/gone")
    local.expire("dataset/gone@v1")
    manifest = local.storage.path(key_of("manifests", kept.digest))
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:100])

    with pytest.raises(StorageFailed, match="repair it from a mirror"):
        _collect(local, clock)
    assert len(list(local.storage.list("packs"))) == 2


def test_left_overs_of_dead_writers_are_removed_once_their_lease_has_run_out(
    local: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    writing = local._publisher.writing()
    _, scratch = writing.__enter__()
    (scratch / "blob-half").write_bytes(b"half")  # and the process dies
    os.utime(scratch, (0, 0))

    clock.forward(hours=23)
    local.gc(NOW)
    assert scratch.exists()
    clock.forward(hours=2)
    local.gc(NOW)
    assert not scratch.exists()
    with local.database.read() as connection:
        assert connection.execute(select(lease)).all() == []


def test_collector_whose_clock_is_ahead_costs_a_writer_its_work_and_nothing_else(
    store: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    store.put(tree({"shared": LARGE, "old": b"1" * 100}), "dataset/d")
    ahead = Surroundings(clock=lambda: clock() + timedelta(days=2))

    def write_while_collected() -> None:
        with store.writer("dataset/w") as draft:
            (draft.folder / "shared").write_bytes(LARGE)
            ArtifactStore(store.storage, store.database, ahead).gc(NOW)

    with pytest.raises(StorageFailed, match="its clock is ahead"):
        write_while_collected()
    assert [str(found) for found in store.names()] == ["dataset/d@v1"]
    assert store.verify("dataset/d").sound
    with store.writer("dataset/w") as draft:
        (draft.folder / "shared").write_bytes(LARGE)
    assert store.verify("dataset/w").sound


def test_stamp_of_the_trash_is_never_before_the_move(
    local: ArtifactStore, tree: Tree, clock: Clock
) -> None:
    local.put(tree({"a": b"1"}), "dataset/d")
    key = next(iter(_objects(local)))
    now = clock()
    trash.discard(local.storage, key, now=now)

    assert not list(trash.older(local.storage, now))
    assert list(trash.older(local.storage, now + timedelta(milliseconds=2)))


def test_runs_are_recorded(store: ArtifactStore, tree: Tree, clock: Clock) -> None:
    store.put(tree({"a": b"1"}), "dataset/d")
    store.expire("dataset/d@v1")
    _collect(store, clock)

    with store.database.read() as connection:
        row = connection.execute(select(gc_run)).one()
    assert row.trashed == 2
    assert row.finished_at is not None
    assert not row.dry_run
