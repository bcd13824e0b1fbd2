"""Where a store keeps its objects: what a local folder and a bucket both offer."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.errors import InvalidRequest

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Item:
    """An object as a listing shows it."""

    key: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since 1970 by the clock of the disk or bucket."""


class Storage(Protocol):
    """Named bytes that are written once.

    Every method raises `StorageFailed` when the disk or the bucket does not do its part; reading an
    absent key raises `FileNotFoundError`, which callers turn into words.
    """

    @property
    def scratch(self) -> Path:
        """A local folder for files in the making; on the same file system where there is one."""
        ...

    def add(self, source: Path, scratch: Path, *, move: bool = False) -> tuple[str, int]:
        """Store a file's bytes as a blob, hashed on the way; return digest and size.

        With `move` the file may be taken instead of copied. It is not durable before `flush`.
        """
        ...

    def publish(self, key: str, finished: Path) -> bool:
        """Give a finished, durable file its name, unless it is taken; true if it was not."""
        ...

    def replace(self, key: str, finished: Path) -> None:
        """Put a finished, durable file in the place of what stands there, in one move."""
        ...

    def flush(self) -> None:
        """Make durable the names published so far."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of an object, `None` where there is none."""
        ...

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes `[start, end)` of an object; a negative start counts from its end."""
        ...

    def open(self, key: str) -> io.BufferedReader:
        """A seekable reader that fetches what is asked for, not the whole."""
        ...

    def path(self, key: str) -> Path | None:
        """Where the object stands on this machine, if it does; to be read only."""
        ...

    def list(self, prefix: str) -> Iterator[Item]:
        """Every object whose key begins with `prefix/`."""
        ...

    def move(self, key: str, to: str) -> bool:
        """Rename an object; false if it is not there."""
        ...

    def delete(self, key: str) -> bool:
        """Remove an object; false if it is not there."""
        ...


def checked(digest: str) -> str:
    """Return the digest.

    Raises:
        InvalidRequest: it is not `sha256:` and 64 hexadecimal digits.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequest(f"{digest!r} is not a digest of the form sha256:<64 hex digits>")
    return digest


def key_of(room: str, digest: str) -> str:
    """Return where `digest` stands in `blobs`, `packs` or `manifests`: `blobs/sha256/ab/cd...`."""
    value = checked(digest).removeprefix("sha256:")
    return f"{room}/sha256/{value[:2]}/{value[2:]}"


def digest_of(key: str) -> str | None:
    """Return the digest a key stands for, `None` for a name that is not one of ours."""
    digest = "sha256:" + "".join(key.rsplit("/", 2)[-2:])
    return digest if _DIGEST.fullmatch(digest) else None
