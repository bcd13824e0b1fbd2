"""Damage is found, said in words, and mended from a mirror; syncing moves only what is missing."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.artifacts.files import Files
from infra.artifacts.packs import PackWriter, read_index
from infra.artifacts.publishing import Made
from infra.artifacts.storage import key_of
from infra.artifacts.store import ArtifactStore
from infra.artifacts.verify import Sample
from infra.errors import StorageFailed

Tree = Callable[..., Path]
Read = Callable[[Path], dict[str, bytes]]
LARGE = os.urandom(300 * 1024)
FILES = {"small": b"1" * 100, "other": b"2" * 100, "large": LARGE, "large2": LARGE[::-1]}


@pytest.fixture
def mirrored(local: ArtifactStore, other: ArtifactStore, tree: Tree) -> ArtifactStore:
    """A store with `dataset/d`, of which `other` holds a copy."""
    local.put(tree(FILES), "dataset/d")
    local.sync("dataset/d", other)
    return local


def _flip(path: Path, offset: int) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def _only(store: ArtifactStore, room: str) -> Path:
    return sorted(store.storage.root.glob(f"{room}/sha256/??/*"))[0]


@pytest.mark.parametrize("room", ["blobs", "packs", "manifests"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_flipped_bit_is_found_and_repaired_from_the_mirror(
    mirrored: ArtifactStore, other: ArtifactStore, room: str, where: str, tmp_path: Path, read: Read
) -> None:
    path = _only(mirrored, room)
    size = path.stat().st_size
    _flip(path, {"first": 0, "middle": size // 2, "last": size - 2}[where])

    report = mirrored.verify("dataset/d")
    assert [problem.key for problem in report.problems] == [
        path.relative_to(mirrored.storage.root).as_posix()
    ]
    assert report.problems[0].reason == "damaged"
    assert mirrored.repair("dataset/d", other.storage).sound
    assert mirrored.verify("dataset/d").sound
    assert read(mirrored.checkout("dataset/d", tmp_path / "out")) == FILES


@pytest.mark.parametrize("room", ["blobs", "packs"])
def test_missing_object_is_found_and_repaired(
    mirrored: ArtifactStore, other: ArtifactStore, room: str
) -> None:
    _only(mirrored, room).unlink()

    assert [problem.reason for problem in mirrored.verify("dataset/d").problems] == ["missing"]
    assert mirrored.repair("dataset/d", other.storage).sound


def test_everything_damaged_at_once_is_repaired(
    mirrored: ArtifactStore, other: ArtifactStore
) -> None:
    for room in ("blobs", "packs", "manifests"):
        for path in mirrored.storage.root.glob(f"{room}/sha256/??/*"):
            _flip(path, path.stat().st_size - 20)

    assert mirrored.repair("dataset/d", other.storage).sound


def test_repair_works_from_a_mirror_that_packs_otherwise(
    local: ArtifactStore, other: ArtifactStore, tree: Tree, tmp_path: Path, read: Read
) -> None:
    source = tree({"a": b"1" * 100})
    local.put(source, "dataset/d")
    (source / "b").write_bytes(b"2" * 100)
    local.put(source, "dataset/d")  # in two packs
    other.put(source, "dataset/d")  # in one
    for path in local.storage.root.glob("packs/sha256/??/*"):
        _flip(path, 0)

    assert not local.verify("dataset/d").sound
    assert local.repair("dataset/d", other.storage).sound
    assert read(local.checkout("dataset/d", tmp_path / "out")) == {"a": b"1" * 100, "b": b"2" * 100}


def test_damaged_mirror_does_not_spread(mirrored: ArtifactStore, other: ArtifactStore) -> None:
    for store in (mirrored, other):
        _flip(_only(store, "blobs"), 7)

    with pytest.raises(StorageFailed, match="arrived damaged"):
        mirrored.repair("dataset/d", other.storage)
    assert [problem.reason for problem in mirrored.verify("dataset/d").problems] == ["damaged"]


def test_edit_through_a_linked_checkout_is_found(
    mirrored: ArtifactStore, other: ArtifactStore, tmp_path: Path
) -> None:
    out = mirrored.checkout("dataset/d", tmp_path / "out")
    _flip(out / "large", 10)

    problem = mirrored.verify("dataset/d").problems[0]
    assert (problem.reason, problem.paths) == ("edited in place", ("large",))
    assert mirrored.repair("dataset/d", other.storage).sound
    assert (out / "large").read_bytes() != LARGE  # the edit stays where it was made


def test_sample_reads_a_share_of_the_files(mirrored: ArtifactStore) -> None:
    report = mirrored.verify("dataset/d", Sample(0.5, random.Random(1)))

    assert report.files == 2
    assert report.sound
    assert mirrored.verify("dataset/d", Sample(0.0001)).files == 1


def test_sync_moves_only_what_is_missing(
    local: ArtifactStore, other: ArtifactStore, tree: Tree, tmp_path: Path, read: Read
) -> None:
    source = tree(FILES)
    local.put(source, "dataset/d")
    first = local.sync("dataset/d", other)
    (source / "new").write_bytes(b"n" * 50)
    local.put(source, "dataset/d")
    second = local.sync("dataset/d", other)
    third = local.sync("dataset/d", other)

    assert first.objects == 4  # two blobs, a pack, the manifest
    assert second.objects == 2  # a pack, the manifest
    assert second.bytes < 2000
    assert third.objects == 0
    assert other.find("dataset/d") == local.find("dataset/d")
    assert read(other.checkout("dataset/d", tmp_path / "out")) == {**FILES, "new": b"n" * 50}


def test_sync_brings_lineage_along(local: ArtifactStore, other: ArtifactStore, tree: Tree) -> None:
    local.put(tree({"a": b"1"}, "raw"), "dataset/raw")
    local.put(tree({"b": b"2"}, "model"), "model/m", Made(parents=[("train", "dataset/raw")]))
    local.sync("model/m", other)

    assert [edge.role for edge in other.lineage("model/m").edges] == ["train"]


def test_damage_at_the_source_does_not_travel(
    local: ArtifactStore, other: ArtifactStore, tree: Tree
) -> None:
    local.put(tree(FILES), "dataset/d")
    _flip(_only(local, "packs"), 3)

    with pytest.raises(StorageFailed, match="arrived damaged"):
        local.sync("dataset/d", other)
    assert other.names() == []
    assert not list(other.storage.list("manifests"))


def test_manifest_without_its_objects_is_filled_up_by_sync(
    mirrored: ArtifactStore, other: ArtifactStore
) -> None:
    _only(other, "blobs").unlink()

    assert mirrored.sync("dataset/d", other).objects == 1
    assert other.verify("dataset/d").sound


def test_pack_index_longer_than_one_read_is_found(local: ArtifactStore) -> None:
    members = {hashlib.sha256(b"%d" % number).digest(): b"%d" % number for number in range(25_000)}
    writer = PackWriter(local.storage.scratch, Files())
    for digest, data in members.items():
        writer.add(digest, data)
    ((pack, path),) = writer.finish().items()
    local.storage.publish(key_of("packs", pack), path)

    assert local.storage.size(key_of("packs", pack)) > len(b"".join(members.values())) + 2**20
    index = read_index(local.storage, pack)
    assert index.keys() == members.keys()
    start, size = index[hashlib.sha256(b"24999").digest()]
    assert local.storage.read(key_of("packs", pack), start, start + size) == b"24999"
