"""Lists the files of a folder that is to be stored, and refuses what must not be in one."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from infra.artifacts.manifest import check_paths
from infra.errors import InvalidRequest, NotFound, TooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """The most an artifact may hold."""

    entries: int = 1_000_000
    bytes: int = 1 << 42


class SourceFile(NamedTuple):
    """A regular file below the folder, with what tells whether it changed."""

    path: str
    """Relative to the folder, with `/`."""
    location: str
    """Where its bytes are; elsewhere in the folder if the name is a link."""
    mode: int
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


def scan(source: Path, limits: Limits) -> list[SourceFile]:
    """Return the files at or below `source`, sorted by path; one file is a tree of one.

    Raises:
        NotFound: nothing is there.
        InvalidRequest: a device, pipe or socket, a link out of the folder or to a folder, or a name
            that is refused in a manifest.
        TooLarge: more files or bytes than `limits`.
    """
    try:
        root = source.resolve(strict=True)
    except FileNotFoundError as error:
        raise NotFound("file or folder", str(source)) from error
    if not root.is_dir():
        found = [_source_file(source.name, str(root), root.stat())]
    else:
        found = _walk(str(root), limits)
    total = sum(file.size for file in found)
    if total > limits.bytes:
        raise TooLarge(f"{str(source)!r} holds {total:,} bytes, more than {limits.bytes:,}")
    found.sort()  # by path, which is the first field
    check_paths([file.path for file in found])
    return found


def _walk(root: str, limits: Limits) -> list[SourceFile]:
    found: list[SourceFile] = []
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_file(follow_symlinks=False):
                    found.append(_source_file(path, entry.path, entry.stat(follow_symlinks=False)))
                elif entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, path + "/"))
                else:
                    found.append(_special(path, entry.path, root))
        if len(found) > limits.entries:
            raise TooLarge(f"{root!r} holds more than {limits.entries:,} files; pack them first")
    return found


def _special(path: str, location: str, root: str) -> SourceFile:
    if not os.path.islink(location):
        return _source_file(path, location, os.stat(location))
    target = os.path.realpath(location)
    if not target.startswith(root.rstrip("/") + "/"):
        raise InvalidRequest(
            f"{path!r} is a link out of the folder, to {target!r}; put a copy of the file there"
        )
    try:
        return _source_file(path, target, os.stat(target))
    except FileNotFoundError as error:
        raise InvalidRequest(f"{path!r} is a link to nothing; remove it") from error


def _source_file(path: str, location: str, status: os.stat_result) -> SourceFile:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(
            f"{path!r} is neither a file nor a folder (a device, pipe, socket or linked folder)"
        )
    return SourceFile(
        path,
        location,
        0o755 if status.st_mode & stat.S_IXUSR else 0o644,
        status.st_size,
        status.st_ino,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
