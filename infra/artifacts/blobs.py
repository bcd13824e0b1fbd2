"""Content-addressed bytes in a folder: written once, durable before named, read by digest."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.artifacts.files import Files, Writer, storage_errors
from infra.artifacts.folder import Folder
from infra.artifacts.storage import digest_of, key_of
from infra.errors import NotFound, TooLarge
from infra.security import new_id

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    """`sha256:` and 64 hexadecimal digits."""
    size: int
    """Bytes."""


class BlobStore:
    """Blobs below one folder, laid out as `blobs/sha256/ab/cd...`, kept until they are deleted.

    A crash at any point leaves a stray temporary file, never a blob with wrong bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._files = Files()
        self._storage = Folder(folder, self._files)

    def put(self, pieces: Iterable[bytes], *, max_bytes: int | None = None) -> Blob:
        """Store the concatenation of `pieces`; storing the same bytes twice stores them once.

        Raises:
            TooLarge: more than `max_bytes` came.
            StorageFailed: the disk is full or cannot be written.
        """
        hasher = hashlib.sha256()
        with storage_errors("store a file"):
            self._files.make_folders(self._storage.scratch)
            temporary = self._storage.scratch / new_id("blob-")
            with Writer(temporary, files=self._files) as writer:
                for piece in pieces:
                    if max_bytes is not None and writer.size + len(piece) > max_bytes:
                        raise TooLarge(
                            f"More than {max_bytes:,} bytes; split the file or raise the limit"
                        )
                    hasher.update(piece)
                    writer.append(piece)
                writer.finish()
            digest = f"sha256:{hasher.hexdigest()}"
            self._storage.publish(key_of("blobs", digest), temporary)
            self._storage.flush()
        return Blob(digest, writer.size)

    def put_file(self, path: Path, *, max_bytes: int | None = None) -> Blob:
        """Store a copy of the file at `path`."""
        with path.open("rb") as file:
            return self.put(iter(lambda: file.read(PIECE), b""), max_bytes=max_bytes)

    def path(self, digest: str) -> Path:
        """Return where the bytes of `digest` stand, to be read only.

        Raises:
            NotFound: no such blob.
        """
        path = self._storage.path(key_of("blobs", digest))
        if not path.is_file():
            raise NotFound("blob", digest)
        return path

    def delete(self, digest: str) -> bool:
        """Remove a blob; true if it was there."""
        key = key_of("blobs", digest)
        if not self._storage.delete(key):
            return False
        with storage_errors("remove a file"):
            self._files.sync_folder(os.path.dirname(self._storage.path(key)))
        return True

    def __iter__(self) -> Iterator[str]:
        found = (digest_of(item.key) for item in self._storage.list("blobs"))
        return (digest for digest in found if digest)

    def clear_temporary(self) -> None:
        """Remove what writers that died left behind; call only while no writer runs."""
        shutil.rmtree(self._storage.scratch, ignore_errors=True)
