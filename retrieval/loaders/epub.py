"""EPUB books: the chapters in reading order, each as the web page that it is."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lxml import etree

from infra.contracts import Document
from infra.errors import Damaged, Encrypted, ExceedsLimit
from retrieval.loaders._archive import Archive
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode
from retrieval.loaders.html import add_page
from retrieval.media_types import EPUB

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({EPUB})

_CONTAINER = "META-INF/container.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml"})
_METADATA = {
    "creator": "author",
    "language": "language",
    "publisher": "publisher",
    "date": "created",
}


def load(path: Path, limits: Loading) -> Document:
    """Read the chapters of the book's spine; a chapter counts as a page."""
    with Archive(path, limits) as archive:
        package_name = _package_name(archive)
        package = archive.xml(package_name)
        composer = Composer(EPUB, limits)
        chapters = list(_chapters(package, posixpath.dirname(package_name)))
        if len(chapters) > limits.max_pages:
            raise ExceedsLimit(f"It has {len(chapters)} chapters, more than loading.max_pages")
        for number, name in enumerate(chapters, start=1):
            if name in archive:
                add_page(composer, decode(archive.read(name)).text, page=number)
            else:
                composer.warn(f"Chapter {name!r} is missing")
        if composer.is_empty and "META-INF/rights.xml" in archive:
            raise Encrypted("The book is protected by digital rights management")
    metadata = {key: _field(package, name) for name, key in _METADATA.items()}
    return composer.document(
        title=_field(package, "title"), metadata={**metadata, "pages": len(chapters)}
    )


def _package_name(archive: Archive) -> str:
    for element in archive.xml(_CONTAINER).iter("{*}rootfile"):
        name = str(element.get("full-path", ""))
        if name in archive:
            return name
    raise Damaged("Its container names no package document")


def _chapters(package: etree._Element, folder: str) -> Iterator[str]:
    files = {
        str(item.get("id")): str(item.get("href", ""))
        for item in package.iter("{*}item")
        if item.get("media-type") in _PAGES
    }
    for reference in package.iter("{*}itemref"):
        href = files.get(str(reference.get("idref")))
        if href:
            yield posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0])))


def _field(package: etree._Element, name: str) -> str:
    element = package.find(f".//{{http://purl.org/dc/elements/1.1/}}{name}")
    return (element.text or "") if element is not None else ""
