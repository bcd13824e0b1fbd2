"""Takes the files of a folder into a store, hashed while they are copied."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from infra.artifacts.files import Files, storage_errors
from infra.artifacts.manifest import Entry
from infra.artifacts.packs import PACKED_BELOW, PackWriter, read_index
from infra.artifacts.storage import Storage, key_of
from infra.artifacts.tree import SourceFile
from infra.errors import Conflict, NotFound, StorageFailed

_READ = os.O_RDONLY | os.O_NOFOLLOW
MOST_PACKS = 32
"""An artifact whose small files lie in more packs than this has them packed anew."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the files."""

    entries: list[Entry]
    """In the order of the files."""
    packs: frozenset[str]
    new_packs: Mapping[str, Path]
    """Packs that are to be published, durable below the scratch folder."""
    read_bytes: int
    """Bytes that had to be read; the rest was known."""


@dataclass(frozen=True, slots=True)
class Known:
    """What spares reading or writing a file."""

    digests: Mapping[str, str] = field(default_factory=dict)
    """By path, of files that did not change since they were stored."""
    packed: Mapping[str, str] = field(default_factory=dict)
    """The pack that holds it, by digest, of earlier artifacts like this one."""


class Intake:
    """One run over the files of one folder.

    Args:
        scratch: this run's own folder for files in the making.
        move: the files may be taken instead of copied.
        workers: threads; hashing and disk calls release the interpreter.
    """

    def __init__(
        self, storage: Storage, *, scratch: Path, files: Files, workers: int, move: bool = False
    ) -> None:
        self._storage = storage
        self._scratch = scratch
        self._files = files
        self._workers = workers
        self._move = move
        self._stopped = threading.Event()
        self._shared: set[str] = set()

    def run(self, sources: Sequence[SourceFile], known: Known) -> Taken:
        """Store every file.

        Raises:
            Conflict: a file changed while it was read.
            StorageFailed: the source or the store does not do its part.
        """
        small = [file for file in sources if file.size < PACKED_BELOW]
        large = [file for file in sources if file.size >= PACKED_BELOW]
        targets = Counter(file.location for file in large)
        self._shared = {location for location, names in targets.items() if names > 1}
        digests: dict[str, str] = {}
        packing = _Packing(PackWriter(self._scratch, self._files), known.packed)
        queue = iter(large)
        tasks: list[Callable[[], int]] = [lambda: self._pack(small, packing, known, digests)]
        tasks += [lambda: self._store(queue, known, digests)] * min(self._workers, len(large))
        try:
            with storage_errors("read the files"):
                read_bytes = sum(self._together(tasks))
                new_packs = packing.writer.finish()
        finally:
            packing.writer.close()
        entries = [Entry(digests[file.path], file.mode, file.path, file.size) for file in sources]
        return Taken(entries, frozenset(packing.used | set(new_packs)), new_packs, read_bytes)

    def _together(self, tasks: Sequence[Callable[[], int]]) -> Iterable[int]:
        if self._workers == 1:
            return [task() for task in tasks]
        with ThreadPoolExecutor(self._workers + 1) as pool:
            futures = [pool.submit(self._unless_stopped, task) for task in tasks]
            return [future.result() for future in futures]

    def _unless_stopped(self, task: Callable[[], int]) -> int:
        try:
            return task()
        except BaseException:
            self._stopped.set()  # the others need not go on
            raise

    def _store(self, queue: Iterator[SourceFile], known: Known, digests: dict[str, str]) -> int:
        read_bytes = 0
        for file in queue:  # shared by the workers: each takes the next
            if self._stopped.is_set():
                break
            digest = known.digests.get(file.path)
            if digest is None or self._storage.size(key_of("blobs", digest)) != file.size:
                digest = self._add(file)
                read_bytes += file.size
            digests[file.path] = digest
        return read_bytes

    def _add(self, file: SourceFile) -> str:
        move = self._move and file.location not in self._shared
        try:
            digest, _ = self._storage.add(Path(file.location), self._scratch, move=move)
            if not move and _differs(file, os.stat(file.location)):
                raise _changed(file)
        except FileNotFoundError as error:
            if os.path.exists(file.location):
                raise
            raise _changed(file) from error
        return digest

    def _pack(
        self,
        sources: Iterable[SourceFile],
        packing: _Packing,
        known: Known,
        digests: dict[str, str],
    ) -> int:
        read_bytes = 0
        unchanged, packed, used = known.digests, packing.packed, packing.used
        for file in sources:  # 100,000 turns are common: a microsecond here is a tenth of a second
            path = file.path
            digest = unchanged.get(path)
            if digest is None or digest not in packed:
                if self._stopped.is_set():
                    break
                data = self._read(file)
                hashed = hashlib.sha256(data)
                digest = "sha256:" + hashed.hexdigest()
                if digest not in packed:
                    packing.writer.add(hashed.digest(), data)
                read_bytes += file.size
            if digest in packed:
                used.add(packed[digest])
            digests[path] = digest
        return read_bytes

    def _read(self, file: SourceFile) -> bytes:
        files, size = self._files, file.size
        try:
            descriptor = files.open(file.location, _READ)
        except FileNotFoundError as error:
            if os.path.exists(file.location):
                raise
            raise _changed(file) from error
        try:
            data = files.read(descriptor, size)
            status = os.fstat(descriptor)
        finally:
            files.close(descriptor)
        if len(data) != size or _differs(file, status):
            raise _changed(file)
        return data


@dataclass(slots=True)
class _Packing:
    writer: PackWriter
    packed: Mapping[str, str]
    used: set[str] = field(default_factory=set)


def packed_by(storage: Storage, packs: Iterable[str]) -> dict[str, str]:
    """Return `{digest: pack}` of the members of packs that a new artifact may refer to."""
    indexes = {}
    for pack in packs:
        try:
            indexes[pack] = read_index(storage, pack)
        except (NotFound, StorageFailed):
            continue  # its members are stored anew
    # The largest are kept, so that many small additions are gathered again from time to time.
    kept = sorted(indexes, key=lambda pack: len(indexes[pack]))[-(MOST_PACKS - 1) :]
    return {f"sha256:{digest.hex()}": pack for pack in kept for digest in indexes[pack]}


def _differs(file: SourceFile, status: os.stat_result) -> bool:
    return (
        status.st_mtime_ns != file.mtime_ns
        or status.st_size != file.size
        or status.st_ino != file.inode
    )


def _changed(file: SourceFile) -> Conflict:
    return Conflict(f"{file.path!r} changed while it was stored; stop its writer and put again")
