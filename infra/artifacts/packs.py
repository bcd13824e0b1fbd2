"""Small files laid end to end in one object, with an index sorted by digest at its end."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from infra.artifacts.files import BUFFER_BYTES, Files, Writer
from infra.artifacts.storage import Storage, key_of
from infra.errors import NotFound, StorageFailed
from infra.security import new_id

PACKED_BELOW = 256 * 1024
"""Bytes; smaller files go into packs. Part of the format: it says where a digest stands."""
MAX_PACK_BYTES = 128 << 20

# Layout: members, then one record for each (digest, offset, length), then the trailer.
# A pack is named by the hash of its records: they hold the hash of every byte before them.
_RECORD = struct.Struct(">32sQI")
_TRAILER = struct.Struct(">8sQ")
_MAGIC = b"RAGPACK1"
_TAIL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file's bytes are: `[start, end)` of an object."""

    key: str
    start: int
    end: int


class PackWriter:
    """Writes packs below `scratch`; `finish` returns those that are to be published."""

    def __init__(self, scratch: Path, files: Files) -> None:
        self._scratch = scratch
        self._files = files
        self._writer: Writer | None = None
        self._members: dict[bytes, tuple[int, int]] = {}
        self._pending: list[bytes] = []
        self._size = 0
        self._write_at = BUFFER_BYTES
        self._background = ThreadPoolExecutor(1)
        self._writing: Future[None] = Future()
        self._writing.set_result(None)
        self._finished: dict[str, Path] = {}

    def add(self, digest: bytes, data: bytes) -> None:
        """Append a member; the same digest twice in one pack is kept once."""
        if digest in self._members:
            return
        self._members[digest] = (self._size, len(data))
        self._pending.append(data)
        self._size += len(data)
        if self._size >= self._write_at:
            self._write_at = self._size + BUFFER_BYTES
            self._write(b"".join(self._pending))
            self._pending.clear()
            if self._size >= MAX_PACK_BYTES:
                self._seal()

    def finish(self) -> dict[str, Path]:
        """Return the durable packs by digest."""
        if self._members:
            self._seal()
        return self._finished

    def close(self) -> None:
        """Close what `finish` did not get to; the file is left to whoever owns `scratch`."""
        self._background.shutdown()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Writer:
        if self._writer is None:
            self._writer = Writer(self._scratch / new_id("pack-"), files=self._files)
        return self._writer

    def _write(self, data: bytes) -> None:
        # The disk works while the next members are read, one write ahead at most.
        self._writing.result()
        self._writing = self._background.submit(self._open().append, data)

    def _seal(self) -> None:
        self._writing.result()
        writer = self._open()
        writer.append(b"".join(self._pending))
        self._pending.clear()
        records = b"".join(
            _RECORD.pack(digest, *where) for digest, where in sorted(self._members.items())
        )
        writer.append(records)
        writer.append(_TRAILER.pack(_MAGIC, len(self._members)))
        writer.finish()
        writer.close()
        self._finished[_name(records)] = writer.path
        self._writer, self._members, self._size, self._write_at = None, {}, 0, BUFFER_BYTES


def read_index(storage: Storage, pack: str) -> Mapping[bytes, tuple[int, int]]:
    """Return `{digest: (offset, length)}` of a pack's members.

    Raises:
        NotFound: no such pack.
        StorageFailed: the index is damaged.
    """
    key = key_of("packs", pack)
    try:
        tail = storage.read(key, -_TAIL_BYTES)
        if len(tail) < _TRAILER.size:
            raise _damaged(pack)
        magic, count = _TRAILER.unpack(tail[-_TRAILER.size :])
        wanted = count * _RECORD.size + _TRAILER.size
        if magic != _MAGIC or wanted > (storage.size(key) or 0):
            raise _damaged(pack)
        if wanted > len(tail):
            tail = storage.read(key, -wanted)
    except FileNotFoundError as error:
        raise NotFound("pack", pack) from error
    records = tail[-wanted : -_TRAILER.size]
    if _name(records) != pack:
        raise _damaged(pack)
    return {digest: (start, size) for digest, start, size in _RECORD.iter_unpack(records)}


def _name(records: bytes) -> str:
    return f"sha256:{hashlib.sha256(records).hexdigest()}"


def _damaged(pack: str) -> StorageFailed:
    return StorageFailed(f"The index of pack {pack!r} is damaged; repair it from a mirror")
