"""Where journals lie, and whose process still lives: the kernel holds a lock for it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def segments(folder: Path, spender_id: str) -> list[Path]:
    """Return the files of a process, the oldest first."""
    return sorted(folder.glob(f"{spender_id}.*.journal"))


def spenders(folder: Path) -> set[str]:
    """Return the processes that have files in a folder."""
    return {path.name.partition(".")[0] for path in folder.glob("*.lock")}


@contextmanager
def inheriting(folder: Path, spender_id: str) -> Iterator[bool]:
    """Hold the lock of a process for the block; yields False if it lives, or has another heir."""
    try:
        lock = os.open(lock_path(folder, spender_id), os.O_RDWR)
    except FileNotFoundError:  # another heir was faster
        yield False
        return
    except OSError as error:
        logger.warning("the journal of %s is left alone: %s", spender_id, error)
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def remove(folder: Path, spender_id: str) -> None:
    """Remove what a process wrote, once it is accounted for; the lock goes last."""
    for path in segments(folder, spender_id):
        path.unlink(missing_ok=True)
    lock_path(folder, spender_id).unlink(missing_ok=True)


def lock_path(folder: Path, spender_id: str) -> Path:
    return folder / f"{spender_id}.lock"
