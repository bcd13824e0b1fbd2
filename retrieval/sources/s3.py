"""Objects below a prefix of a bucket: S3, GCS, Azure, or whatever fsspec knows by URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra.artifacts.bucket import connect_filesystem, failures_of
from infra.artifacts.files import storage_errors
from infra.errors import ExceedsLimit, InvalidRequest, SourceFailed, StorageFailed
from retrieval.globs import Globs
from retrieval.sources import (
    Context,
    Fetched,
    Item,
    ItemVanished,
    NotModified,
    Unwalkable,
    check_options,
)

_ELSEWHERE = frozenset({"file", "local", "http", "https", "simplecache", "filecache", "blockcache"})
"""Protocols that other sources read with more care, or that reach the local disk."""


def build(place: str, context: Context) -> Bucket:
    """Return the objects below a URL such as `s3://bucket/prefix`."""
    check_options(context, *Globs.OPTIONS)
    protocol, separator, _ = place.partition("://")
    if not separator or "::" in place or protocol in _ELSEWHERE:
        raise InvalidRequest(
            f"{place!r} is not a bucket; use a URL such as s3://bucket/prefix", parameter="source"
        )
    try:
        filesystem, prefix = connect_filesystem(place, **context.limits.storage_options)
    except ImportError as error:
        raise InvalidRequest(f"{place!r}: {error}", parameter="source") from error
    return Bucket(protocol, filesystem, prefix, context)


class Bucket:
    """The objects below a prefix; the version is the ETag, or size and date where there is none."""

    def __init__(self, protocol: str, filesystem: Any, prefix: str, context: Context) -> None:
        self.identity = f"{protocol}://{prefix.strip('/')}/"
        self._protocol = protocol
        self._filesystem = filesystem
        self._prefix = prefix.rstrip("/")
        self._globs = Globs(context.options)
        self._max_bytes = context.limits.max_item_bytes

    def list(self) -> Iterator[Item | Unwalkable]:
        try:
            with self._errors("list"):
                found = self._filesystem.find(self._prefix, detail=True)
        except FileNotFoundError as error:
            raise SourceFailed(f"{self.identity!r} cannot be listed: {error}") from error
        for name, info in sorted(found.items()):
            relative = name.removeprefix(self._prefix).lstrip("/")
            if name.endswith("/") or not self._globs.choose(relative):
                continue
            yield Item(
                f"{self._protocol}://{quote(name.lstrip('/'))}",
                name.rpartition("/")[2],
                _version(info),
                size=info.get("size"),
                handle=name,
            )

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        del known
        if (item.size or 0) > self._max_bytes:
            raise ExceedsLimit(
                f"It has {item.size:,} bytes, more than sources.max_item_bytes"
                f" ({self._max_bytes:,})"
            )
        path = scratch / "object"
        try:
            with self._errors("fetch"):
                self._filesystem.get_file(item.handle, str(path))
        except FileNotFoundError as error:
            raise ItemVanished("It was removed after it was listed") from error
        # The version is that of the listing: a change meanwhile is seen next time.
        return Fetched(path, item.version)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            with storage_errors(f"{doing} {self.identity!r}", also=failures_of(self._filesystem)):
                yield
        except StorageFailed as error:
            raise SourceFailed(error.message) from error


def _version(info: Mapping[str, Any]) -> str | None:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if etag:
        return str(etag).strip('"')
    changed = info.get("LastModified") or info.get("mtime") or info.get("created")
    return None if changed is None else f"{changed}-{info.get('size')}"
