"""Files and folders of this machine, walked in a stable order; links that lead out are refused."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from infra.contracts import Readers
from infra.errors import InvalidRequest, SourceFailed
from retrieval.globs import Globs
from retrieval.sources import (
    Context,
    Fetched,
    Item,
    ItemVanished,
    NotModified,
    Source,
    Unwalkable,
    check_options,
)

SETTLED_SECONDS = 0.1
"""A file that changed later than this may change again within the same tick of the clock."""


def build(place: str, context: Context) -> Folder:
    """Return the folder at a path or `file:` URL; options `include` and `exclude` are globs."""
    check_options(context, *Globs.OPTIONS)
    if place.startswith("file://"):
        place = os.fsdecode(unquote_to_bytes(urlsplit(place).path))
    path = Path(place).expanduser()
    if not path.is_dir():
        raise InvalidRequest(f"No folder {str(path)!r}", parameter="source")
    return Folder(path.resolve(), context)


class Folder:
    """The files below a folder; hidden ones and linked folders are passed over."""

    def __init__(self, root: Path, context: Context) -> None:
        self.identity = root.as_uri()
        self.root = root
        self._globs = Globs(context.options)

    def list(self) -> Iterator[Item | Unwalkable]:
        began_at = self._identify()
        refused: list[OSError] = []
        for folder, subfolders, names in os.walk(self.root, onerror=refused.append):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and self._globs.choose(self._relative(path)):
                    yield from self._look_at(path)
        for error in refused:
            uri = Path(error.filename).as_uri()
            yield Unwalkable(uri, error.strerror or "cannot be read", hides=True)
        if self._identify() != began_at:  # unmounted, or another folder put in its place
            raise SourceFailed(f"{str(self.root)!r} was replaced while it was listed; run it again")

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        del scratch, known
        path = Path(item.handle)
        for looked in self._look_at(path):
            if isinstance(looked, Unwalkable):
                raise ItemVanished(looked.reason)
            # The version is that of before the file is read: a change meanwhile is seen next time.
            return Fetched(path, looked.version)
        self._identify()
        raise ItemVanished("It was removed while the folder was read")

    def _identify(self) -> tuple[int, int]:
        try:
            status = self.root.stat()
            os.scandir(self.root).close()
        except OSError as error:
            raise SourceFailed(
                f"Folder {str(self.root)!r} cannot be listed: {error.strerror}"
            ) from error
        return status.st_dev, status.st_ino

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _look_at(self, path: Path) -> Iterator[Item | Unwalkable]:
        uri = path.as_uri()
        try:
            target = path.resolve(strict=True)
            status = target.stat()
        except FileNotFoundError:
            if path.is_symlink():
                yield Unwalkable(uri, "a link to nothing")
            return  # removed since its folder was listed
        except (OSError, RuntimeError) as error:  # RuntimeError: links that go in circles
            yield Unwalkable(uri, getattr(error, "strerror", None) or "a link in a circle")
            return
        if not target.is_relative_to(self.root):
            yield Unwalkable(uri, "a link that leads out of the folder", code="outside")
        elif not target.is_file():
            yield Unwalkable(uri, "not a regular file")
        else:
            yield Item(uri, _label(path), _version(status), size=status.st_size, handle=str(path))


def walk(
    paths: Iterable[Path],
    *,
    metadata: Mapping[str, Any] | None = None,
    readers: Readers | None = None,
) -> Iterator[Source | Unwalkable]:
    """Yield the files at and below `paths`, sorted; hidden ones and linked folders are passed over.

    Raises:
        InvalidRequest: a path does not exist; nothing was walked yet.
    """
    roots = list(paths)
    for root in roots:
        if not root.exists():
            raise InvalidRequest(f"No file or folder {str(root)!r}", parameter="paths")
    found = _walk(roots, dict(metadata or {}))
    return (replace(one, readers=readers) if isinstance(one, Source) else one for one in found)


def _walk(roots: list[Path], metadata: dict[str, Any]) -> Iterator[Source | Unwalkable]:
    for root in roots:
        path = root.resolve()
        if not path.is_dir():
            yield _source(path, metadata)
            continue
        refused: list[OSError] = []
        for folder, subfolders, names in os.walk(path, onerror=refused.append):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    yield _source(Path(folder, name), metadata)
        for error in refused:
            yield Unwalkable(Path(error.filename).as_uri(), error.strerror or "cannot be read")


def _source(path: Path, metadata: dict[str, Any]) -> Source | Unwalkable:
    # A FIFO or a device would block for ever; a link is followed to the file it names.
    if not path.is_file():
        return Unwalkable(path.as_uri(), "not a regular file")
    return Source(uri=path.as_uri(), path=path, filename=_label(path), metadata=metadata)


def _label(path: Path) -> str:
    # A name may be bytes that are no text; the URI keeps them, the label cannot.
    return os.fsencode(path.name).decode(errors="replace")


def _version(status: os.stat_result) -> str | None:
    newest = max(status.st_mtime, status.st_ctime)
    if abs(time.time() - newest) < SETTLED_SECONDS:
        return None
    # The change time tells of a file put in place with the size and date of the former one.
    return f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_size}-{status.st_ino}"
