"""Files that several processes share: locks that die with their owner, durable writes, links."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCESS_LOCK = "access.lock"
"""Held shared by who reads a checkpoint, alone by who removes files that others may read."""
CHECKPOINT_LOCK = "checkpoint.lock"
"""Held by the one process that writes a checkpoint."""
_WORK_PREFIX = "work-"
_OWNER_LOCK = "owner.lock"


class WorkingFolder:
    """A private folder that the next process to come removes when its owner has died."""

    def __init__(self, folder: Path) -> None:
        # Alone, because a folder that exists and is not yet locked looks like a dead one.
        with locked(folder / ACCESS_LOCK):
            _remove_dead(folder)
            self.path = Path(tempfile.mkdtemp(prefix=f"{_WORK_PREFIX}{os.getpid()}-", dir=folder))
            self._lock = os.open(self.path / _OWNER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`, waiting for it as long as it takes."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path` if nobody else does; yields whether."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def link(source: Path, target: Path) -> None:
    """Give an immutable file a second name; it is copied where the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def _remove_dead(folder: Path) -> None:
    for path in folder.glob(f"{_WORK_PREFIX}*"):
        try:
            with locked_if_free(path / _OWNER_LOCK) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            # Its owner is removing it this moment.
            continue
