"""A store's objects under an fsspec URL (S3, GCS, Azure, HDFS), written by conditional put."""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.addresses import shown
from infra.artifacts.files import BUFFER_BYTES, Files, storage_errors
from infra.artifacts.folder import hash_descriptor
from infra.artifacts.storage import Item, key_of
from infra.errors import InvalidConfiguration, StorageFailed
from infra.plugins import require

_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "abfs": ("adlfs", "azure"),
    "az": ("adlfs", "azure"),
}
"""The package behind a protocol, and the extra that installs it."""
_PRECONDITION_FAILED = 412


class Bucket:
    """The `Storage` of an fsspec file system below a prefix.

    Args:
        filesystem: an `fsspec.AbstractFileSystem`.
        prefix: where the store begins, such as `bucket/ragstone`.
        scratch: a local folder for files in the making; a temporary one by default.
    """

    def __init__(self, filesystem: Any, prefix: str, scratch: Path | None = None) -> None:
        self._filesystem = filesystem
        self._prefix = prefix.rstrip("/")
        self._scratch = scratch or Path(tempfile.gettempdir()) / "ragstone-artifacts"
        self._failures = failures_of(filesystem)

    @property
    def scratch(self) -> Path:
        return self._scratch

    def add(self, source: Path, scratch: Path, *, move: bool = False) -> tuple[str, int]:
        del scratch, move
        # Hashed first and sent second: what the bucket has already does not travel.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            digest, size = hash_descriptor(descriptor, Files(), mmap.mmap(-1, BUFFER_BYTES))
        finally:
            os.close(descriptor)
        self._send(key_of("blobs", digest), source)
        return digest, size

    def publish(self, key: str, finished: Path) -> bool:
        new = self._send(key, finished)
        finished.unlink()
        return new

    def replace(self, key: str, finished: Path) -> None:
        with self._errors("replace"):
            self._filesystem.put_file(str(finished), self._at(key))
        finished.unlink()

    def flush(self) -> None:
        """Buckets answer a put when it is durable."""

    def size(self, key: str) -> int | None:
        with self._errors("look up"):
            try:
                return int(self._filesystem.info(self._at(key))["size"])
            except FileNotFoundError:
                return None

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        with self._errors("read"):
            whole = start == 0 and end is None
            bounds = {} if whole else {"start": start, "end": end}
            return bytes(self._filesystem.cat_file(self._at(key), **bounds))

    def open(self, key: str) -> io.BufferedReader:
        size = self.size(key)
        if size is None:
            raise FileNotFoundError(key)
        return io.BufferedReader(Ranges(self, key, 0, size), BUFFER_BYTES)

    def path(self, key: str) -> Path | None:
        del key
        return None

    def list(self, prefix: str) -> Iterator[Item]:
        with self._errors("list"):
            try:
                found = self._filesystem.find(self._at(prefix), detail=True)
            except FileNotFoundError:
                return
        root = self._filesystem._strip_protocol(self._prefix).rstrip("/") + "/"
        for name, info in sorted(found.items()):
            yield Item(name.removeprefix(root), int(info["size"]), self._modified(name, info))

    def move(self, key: str, to: str) -> bool:
        with self._errors("move"):
            try:
                self._filesystem.cp_file(self._at(key), self._at(to))
                self._filesystem.rm_file(self._at(key))
            except FileNotFoundError:
                return False
        return True

    def delete(self, key: str) -> bool:
        if self.size(key) is None:
            return False
        with self._errors("remove"):
            self._filesystem.rm_file(self._at(key))
        return True

    def _send(self, key: str, source: Path) -> bool:
        if self.size(key) == source.stat().st_size:
            return False
        with self._errors("store"):
            try:
                self._filesystem.put_file(str(source), self._at(key), mode="create")
            except FileExistsError:
                return False  # another writer was first, with the same bytes
            except OSError as error:
                if _status(error) != _PRECONDITION_FAILED:
                    raise
                return False
        return True

    def _modified(self, name: str, info: dict[str, Any]) -> float:
        modified = info.get("LastModified") or info.get("mtime") or info.get("created")
        if modified is None:
            modified = self._filesystem.modified(name)
        return float(modified if isinstance(modified, int | float) else modified.timestamp())

    def _at(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    def _errors(self, doing: str) -> Any:
        return storage_errors(f"{doing} in {self._prefix!r}", also=self._failures)


class Ranges(io.RawIOBase):
    """A reader over bytes `[start, end)` of one object, fetched as they are asked for."""

    def __init__(self, storage: Any, key: str, start: int, end: int) -> None:
        self._storage = storage
        self._key = key
        self._start = start
        self._end = end
        self._position = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: self._start, os.SEEK_CUR: self._position, os.SEEK_END: self._end}
        self._position = max(self._start, origin[whence] + offset)
        return self.tell()

    def tell(self) -> int:
        return self._position - self._start

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._end)
        if end <= self._position:
            return 0
        try:
            data = self._storage.read(self._key, self._position, end)
        except FileNotFoundError as error:
            raise StorageFailed(f"{self._key!r} is missing; repair it from a mirror") from error
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def connect(url: str, *, scratch: Path | None = None, **options: Any) -> Bucket:
    """Open a bucket by URL, such as `s3://bucket/prefix`; `options` are fsspec's.

    Raises:
        MissingDependency: the package for the protocol is not installed.
        InvalidConfiguration: fsspec does not know the protocol.
    """
    filesystem, prefix = connect_filesystem(url, **options)
    return Bucket(filesystem, prefix, scratch)


def connect_filesystem(url: str, **options: Any) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it; raises as `connect` does."""
    protocol = url.partition("://")[0]
    if protocol in _PACKAGES:
        package, extra = _PACKAGES[protocol]
        require(package, extra=extra)
    fsspec = require("fsspec", extra="s3")
    try:
        filesystem, prefix = fsspec.core.url_to_fs(
            url, use_listings_cache=False, skip_instance_cache=True, **options
        )
    except ValueError as error:
        words = str(error).replace(url, shown(url))
        raise InvalidConfiguration(f"Cannot open {shown(url)!r}: {words}") from None
    return filesystem, prefix


def _status(error: OSError) -> int | None:
    """The HTTP status behind an error of s3fs, which not every server words as S3 does."""
    response = getattr(error.__cause__, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def failures_of(filesystem: Any) -> tuple[type[Exception], ...]:
    """Return what a file system raises besides `OSError` where its server does not answer."""
    protocol = filesystem.protocol
    if "s3" in ((protocol,) if isinstance(protocol, str) else protocol):
        return (require("botocore.exceptions", extra="s3").BotoCoreError,)
    return (TimeoutError,)
