"""Remembers a folder's digests, to tell the files that did not change; never an identity."""

from __future__ import annotations

import hashlib
import socket
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from infra.artifacts.manifest import Entry
from infra.artifacts.tables import stat_cache
from infra.artifacts.tree import SourceFile

RACY_NS = 2_000_000_000
"""A file changed this shortly before it was read could change again within one tick of its clock,
the coarsest of which is two seconds; it is read anew next time."""

_NUMBERS = 4
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is known of a folder from the last time it was stored."""

    artifact: str | None = None
    """Digest of what it was stored as."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """By path, of the files whose inode, size and times are the same."""


def recall(connection: Connection, source: Path, files: Sequence[SourceFile]) -> Recalled:
    """Return what is known of `files`, just scanned below `source`."""
    row = connection.execute(
        select(stat_cache.c.digest, stat_cache.c.files).where(stat_cache.c.source == _key(source))
    ).one_or_none()
    if row is None:
        return Recalled()
    remembered = _decode(row.files)
    digests = {}
    for file in files:
        known = remembered.get(file.path)
        if known is not None and known[:-1] == _identity(file):
            digests[file.path] = known[-1]
    return Recalled(row.digest, digests)


def remember(
    connection: Connection,
    source: Path,
    *,
    artifact: str,
    files: Sequence[SourceFile],
    entries: Sequence[Entry],
    scanned_at: datetime,
) -> None:
    """Keep what was read of a folder that was scanned at `scanned_at`, before any was read."""
    latest = int(scanned_at.timestamp() * 1e9) - RACY_NS
    settled = [
        (*_identity(file), file.path, entry.digest)
        for file, entry in zip(files, entries, strict=True)
        if file.mtime_ns < latest and file.ctime_ns < latest
    ]
    key = _key(source)
    connection.execute(delete(stat_cache).where(stat_cache.c.source == key))
    connection.execute(
        insert(stat_cache).values(
            source=key, digest=artifact, files=_encode(settled), used_at=scanned_at
        )
    )


def forget(connection: Connection, *, before: datetime) -> None:
    """Drop the folders that were not stored since."""
    connection.execute(delete(stat_cache).where(stat_cache.c.used_at < before))


def _key(source: Path) -> str:
    place = f"{socket.gethostname()}\0{source.resolve()}"
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()


def _identity(file: SourceFile) -> tuple[int, int, int, int]:
    return (file.inode, file.size, file.mtime_ns, file.ctime_ns)


def _encode(rows: Sequence[tuple[int, int, int, int, str, str]]) -> bytes:
    count = len(rows).to_bytes(8, "big")
    if not rows:
        return count
    *numbers, paths, digests = zip(*rows, strict=True)
    parts = [count, *(array("q", column).tobytes() for column in numbers)]
    parts.append(bytes.fromhex("".join(digests).replace("sha256:", "")))
    parts.append("\0".join(paths).encode())
    return b"".join(parts)


def _decode(data: bytes) -> dict[str, tuple[int, int, int, int, str]]:
    count = int.from_bytes(data[:8], "big")
    columns = []
    position = 8
    for _ in range(_NUMBERS):
        column = array("q")
        column.frombytes(data[position : position + 8 * count])
        columns.append(column)
        position += 8 * count
    digests = data[position : position + _DIGEST_BYTES * count].hex()
    paths = data[position + _DIGEST_BYTES * count :].decode().split("\0") if count else []
    width = 2 * _DIGEST_BYTES
    return {
        path: (*numbers, f"sha256:{digests[index * width : (index + 1) * width]}")
        for index, (path, *numbers) in enumerate(zip(paths, *columns, strict=True))
    }
