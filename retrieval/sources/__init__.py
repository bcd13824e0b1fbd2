"""Sources: plug-ins that list the documents of a place, each with a version, and fetch them.

A plug-in is a file with `build(place, context) -> Origin`. The laws: a listing is complete or
raises `SourceFailed`; the same version means the same bytes; what is listed can be fetched, or the
reason is an error; nothing outside the place is ever read. The smallest one:

>>> from pathlib import Path
>>> class Notes:
...     identity = "notes:mine"
...
...     def list(self):
...         yield Item("notes:mine/1", filename="1.txt", version="a")
...
...     def fetch(self, item, scratch, *, known):
...         path = scratch / item.filename
...         _ = path.write_text("Buy bread.")
...         return Fetched(path, item.version)
>>> isinstance(Notes(), Origin)
True
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from infra.contracts import Readers
from infra.errors import InvalidRequest, UnreadableDocument
from infra.plugins import available, load
from infra.settings import Sources as Limits

MAX_URI_CHARACTERS = 2048
"""Longer ones cannot be kept apart in the database."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to ingest."""

    uri: str
    """Its identity within a collection: the same URI again is a new version of the document."""
    path: Path
    filename: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    readers: Readers | None = None
    """Who may read the document; None leaves that as it is, or as the collection says."""


@dataclass(frozen=True, slots=True)
class Unwalkable:
    """A path or address that could not be looked into."""

    uri: str
    reason: str
    code: str = "unreadable"
    hides: bool = False
    """Whether documents may lie behind it: then nothing that was not seen is known to be gone."""


@dataclass(frozen=True, slots=True)
class Item:
    """One document as a source lists it."""

    uri: str
    filename: str
    version: str | None
    """Changes whenever the bytes do; None if only fetching tells."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    """Bytes, where the listing tells."""
    handle: str = ""
    """What the source itself needs to find it again."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of an item, in a file."""

    path: Path
    version: str | None
    """Of these bytes; None if it cannot be told, and they are fetched again next time."""
    filename: str | None = None
    """Where fetching tells better than the listing."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Added to that of the item."""


@dataclass(frozen=True, slots=True)
class NotModified:
    """The item is what it was when its version was `known`."""


class ItemGone(UnreadableDocument):
    """The source itself says that the item is no more."""

    code = "gone"


class ItemVanished(UnreadableDocument):
    """The item was listed and is not there now; the next listing will tell."""

    code = "vanished"


@runtime_checkable
class Origin(Protocol):
    """A place that documents come from."""

    identity: str
    """The place, without secrets: what was brought in under another identity is not touched."""

    def list(self) -> Iterator[Item | Unwalkable]:
        """Yield all there is.

        Raises:
            SourceFailed: the listing cannot be completed; nothing must be removed because of it.
        """
        ...

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        """Bring the bytes of an item into a file, of its own or in the folder `scratch`.

        Args:
            item: one of those listed.
            scratch: an empty folder.
            known: the version that the collection holds, if it does.

        Raises:
            ItemGone: the source says that there is no such item any more.
            UnreadableDocument: it cannot be fetched now, or is more than the limits allow.
            SourceFailed: the source does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a plug-in is built with."""

    limits: Limits
    options: Mapping[str, str] = field(default_factory=dict)
    """Of this source; from requests too, so never more than words about what to read."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A kind of source and the place it reads."""

    kind: str
    place: str


def parse_spec(text: str) -> Spec:
    """Tell the kind of a source from how its place is written.

    >>> parse_spec("https://example.org/sitemap.xml").kind
    'web'
    >>> parse_spec("s3://bucket/handbook").kind
    's3'
    >>> parse_spec("git:../handbook#main")
    Spec(kind='git', place='../handbook#main')
    >>> parse_spec("handbook")
    Spec(kind='folder', place='handbook')

    Raises:
        InvalidRequest: it is empty.
    """
    if not text.strip() or "\0" in text:
        raise InvalidRequest(f"{text!r} names no source", parameter="source")
    kind, separator, place = text.partition(":")
    if separator and kind in available(__name__) and not (kind == "s3" and place[:2] == "//"):
        return Spec(kind, place)
    if kind.lower() in {"http", "https"}:
        return Spec("web", text)
    if place.startswith("//"):
        return Spec("s3", text)
    return Spec("folder", text)


def open_origin(spec: Spec, context: Context) -> Origin:
    """Return the place that a spec names.

    Raises:
        InvalidConfiguration: there is no such kind of source.
        InvalidRequest: the place or an option does not fit.
    """
    return cast("Origin", load(__name__, spec.kind)(spec.place, context))


def check_options(context: Context, *known: str) -> None:
    """Refuse options that a source does not have.

    Raises:
        InvalidRequest: names the first.
    """
    for name in context.options:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InvalidRequest(f"No option {name!r}; {takes}", parameter="options")
