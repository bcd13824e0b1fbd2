"""Unchanged files are not read again, and changed ones always are."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from infra.artifacts.files import Files
from infra.artifacts.folder import Folder
from infra.artifacts.gc import Policy
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore

Tree = Callable[..., Path]


class Clock(Protocol):
    def __call__(self) -> datetime: ...
    def forward(self, **span: float) -> None: ...


class CountingFiles(Files):
    """Counts the files of a source folder that are opened."""

    def __init__(self, source: Path) -> None:
        self.source = str(source)
        self.opened: list[str] = []

    def open(self, path: object, flags: int, mode: int = 0o777) -> int:
        if str(path).startswith(self.source):
            self.opened.append(os.path.basename(str(path)))
        return os.open(str(path), flags, mode)


@pytest.fixture
def source(tree: Tree) -> Path:
    return tree({"one": b"1", "two": b"2", "big": b"3" * 300_000})


@pytest.fixture
def files(source: Path) -> CountingFiles:
    return CountingFiles(source)


@pytest.fixture
def store(local: ArtifactStore, files: CountingFiles, clock: Clock) -> ArtifactStore:
    around = Surroundings(clock=clock, files=files)
    return ArtifactStore(Folder(local.storage.root, files), local.database, around)


def _put_later(store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles) -> list[str]:
    clock.forward(minutes=1)
    files.opened.clear()
    store.put(source, "dataset/d")
    return sorted(files.opened)


def test_unchanged_files_are_not_opened_again(
    store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles
) -> None:
    assert _put_later(store, source, clock, files) == ["big", "one", "two"]
    assert _put_later(store, source, clock, files) == []


def test_edit_of_the_same_size_with_its_old_time_put_back_is_seen(
    store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles
) -> None:
    _put_later(store, source, clock, files)
    before = (source / "one").stat()
    (source / "one").write_bytes(b"X")
    os.utime(source / "one", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert _put_later(store, source, clock, files) == ["one"]
    with store.open("dataset/d", "one") as reader:
        assert reader.read() == b"X"


def test_file_swapped_for_another_of_the_same_size_is_seen(
    store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles
) -> None:
    _put_later(store, source, clock, files)
    (source / "new").write_bytes(b"9")
    os.replace(source / "new", source / "two")

    assert _put_later(store, source, clock, files) == ["two"]


def test_file_written_just_before_it_was_read_is_read_again(
    store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles
) -> None:
    clock.forward(seconds=1)  # less than the coarsest tick of a file's clock
    store.put(source, "dataset/d")

    assert _put_later(store, source, clock, files) == ["big", "one", "two"]
    assert _put_later(store, source, clock, files) == []


def test_collected_artifact_is_stored_anew_whatever_is_remembered(
    store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles
) -> None:
    _put_later(store, source, clock, files)
    store.expire("dataset/d")
    clock.forward(days=3)
    store.gc(Policy(grace=timedelta(0), trash=timedelta(0)))
    clock.forward(days=3)
    store.gc(Policy(grace=timedelta(0), trash=timedelta(0)))
    assert not list(store.storage.list("blobs"))

    assert _put_later(store, source, clock, files) == ["big", "one", "two"]
    assert store.verify("dataset/d").sound


def test_removed_blob_is_stored_anew_whatever_is_remembered(
    store: ArtifactStore, source: Path, clock: Clock, files: CountingFiles
) -> None:
    _put_later(store, source, clock, files)
    next(store.storage.root.glob("blobs/sha256/??/*")).unlink()

    assert _put_later(store, source, clock, files) == ["big"]
    assert store.verify("dataset/d").sound
