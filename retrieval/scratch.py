"""Folders for bytes on their way in; those of a process that died are removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder below `parent` that is gone after the block."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear(parent)
    folder = Path(tempfile.mkdtemp(dir=parent))
    with (folder / _LOCK).open("xb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(parent: Path) -> None:
    """Remove the folders whose owner lives no more, which is when their lock is free."""
    for folder in parent.iterdir():
        with (
            contextlib.suppress(OSError),
            os.fdopen(os.open(folder / _LOCK, os.O_RDONLY), "rb") as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
