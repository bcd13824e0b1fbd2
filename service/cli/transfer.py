"""Progress bars over putting and checking out artifacts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.artifacts.files import Files
from infra.artifacts.folder import Folder
from infra.artifacts.publishing import Made, Surroundings
from infra.artifacts.store import ArtifactStore

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from service.wiring import Components

REFRESH_SECONDS = 0.1


class _Counting(Files):
    """Counts what is read and made; several threads add, and a lost count harms no one."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self.files_made = 0

    def read(self, descriptor: int, length: int) -> bytes:
        data = os.read(descriptor, length)
        self.bytes_read += len(data)
        return data

    def readv(self, descriptor: int, buffers: Any) -> int:
        count = os.readv(descriptor, buffers)
        self.bytes_read += count
        return count

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:  # type: ignore[override]
        self.files_made += bool(flags & os.O_CREAT)
        return os.open(path, flags, mode)

    def link(self, source: Any, target: Any) -> None:  # type: ignore[override]
        os.link(source, target)
        self.files_made += 1


def put_watched(parts: Components, source: Path, *, name: str, made: Made) -> Reference:
    """Store a folder, showing how many of its bytes were read; unchanged ones are not."""
    files = _Counting()
    store = _watched(parts, files)
    with _bar("storing", lambda: files.bytes_read, total=_size(source), of_bytes=True):
        return store.put(source, name, made)


def checkout_watched(
    parts: Components,
    reference: str,
    destination: Path,
    *,
    mode: Literal["hardlink", "reflink", "copy"],
    verify: bool | None,
) -> None:
    """Lay an artifact out, showing how many of its files are there."""
    files = _Counting()
    store = _watched(parts, files)
    total = len(store.resolve(reference).entries)
    with _bar("checking out", lambda: files.files_made, total=total, of_bytes=False):
        store.checkout(reference, destination, mode=mode, verify=verify)


def _watched(parts: Components, files: Files) -> ArtifactStore:
    """The store with its file-system calls counted, if it lies on a disk and somebody watches."""
    store = parts.artifacts
    if not isinstance(store.storage, Folder) or not sys.stderr.isatty():
        return store
    storage = Folder(store.storage.root, files)
    return ArtifactStore(storage, parts.database, Surroundings(files=files))


@contextmanager
def _bar(what: str, count: Any, *, total: int, of_bytes: bool) -> Iterator[None]:
    import threading

    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from service.cli.output import console

    amount = DownloadColumn() if of_bytes else MofNCompleteColumn()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        amount,
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console(sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    over = threading.Event()
    task = bar.add_task(what, total=total)

    def follow() -> None:
        while not over.wait(REFRESH_SECONDS):
            bar.update(task, completed=min(total, count()))

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    with bar:
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _size(source: Path) -> int:
    if source.is_file():
        return source.stat().st_size
    total = 0
    for folder, _, names in os.walk(source):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # gone since it was listed: the store will say so
                continue
    return total
