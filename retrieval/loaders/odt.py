"""OpenDocument text: headings, paragraphs, list items and tables in the order of the body."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lxml import etree

from infra.contracts import Document
from infra.errors import Damaged, Encrypted, UnreadableDocument
from retrieval.loaders._archive import Archive
from retrieval.loaders._composer import Composer
from retrieval.loaders._rows import row_line
from retrieval.media_types import OPEN_TEXT

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({OPEN_TEXT})

_BREAKS = {"tab": "\t", "line-break": "\n", "s": " "}
_LEFT_OUT = frozenset("annotation tracked-changes sequence-decls forms hidden-text".split())  # noqa: SIM905
_PARAGRAPHS = frozenset({"p", "h"})
_METADATA = {"creator": "author", "subject": "subject", "language": "language", "date": "modified"}


def load(path: Path, limits: Loading) -> Document:
    """Read the body; comments, deleted text, page headers and footers are left out."""
    with Archive(path, limits) as archive:
        if b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise Encrypted("It is behind a password; save it without one")
        content = archive.xml("content.xml")
        body = next(content.iter("{urn:oasis:names:tc:opendocument:xmlns:office:1.0}text"), None)
        if body is None:
            raise Damaged("Its content holds no text body")
        composer = Composer(OPEN_TEXT, limits)
        _add(composer, body)
        properties = _properties(archive)
    return composer.document(title=properties.pop("title", ""), metadata=properties)


def _add(composer: Composer, body: etree._Element) -> None:
    walk = etree.iterwalk(body, events=("start", "end"))
    lists = 0
    for event, element in walk:
        name = _name(element)
        if event == "end":
            lists -= name == "list"
        elif name == "list":
            lists += 1
        elif name == "table":
            walk.skip_subtree()
            rows = (row for row in element.iter() if _name(row) == "table-row")
            composer.add("table", "\n".join(filter(None, map(_row, rows))))
        elif name in _PARAGRAPHS:
            walk.skip_subtree()
            _add_paragraph(composer, element, in_list=lists > 0)
        elif name in _LEFT_OUT:
            walk.skip_subtree()


def _add_paragraph(composer: Composer, element: etree._Element, *, in_list: bool) -> None:
    text = _text(element)
    if _name(element) == "h":
        levels = (str(v) for key, v in element.attrib.items() if "outline-level" in str(key))
        declared = next(levels, "1")
        level = int(declared) if declared.isdecimal() else 1
        composer.add("heading", " ".join(text.split()), level=min(max(level, 1), 9))
    else:
        composer.add("list_item" if in_list else "paragraph", text)


def _row(row: etree._Element) -> str:
    cells = (cell for cell in row if _name(cell) == "table-cell")
    paragraphs = ([_text(p) for p in cell.iter() if _name(p) in _PARAGRAPHS] for cell in cells)
    return row_line([" ".join(" ".join(texts).split()) for texts in paragraphs])


def _text(paragraph: etree._Element) -> str:
    """White space collapses as in a web page; tabs and breaks are elements of their own."""
    parts: list[str] = []
    walk = etree.iterwalk(paragraph, events=("start", "end", "comment"))
    for event, element in walk:
        if event == "start":
            if _name(element) in _LEFT_OUT:
                walk.skip_subtree()
                continue
            parts.append(_BREAKS.get(_name(element), ""))
            parts.append(" ".join((f"|{element.text or ''}|").split())[1:-1])
        elif element is not paragraph:
            parts.append(" ".join((f"|{element.tail or ''}|").split())[1:-1])
    return "".join(parts)


def _properties(archive: Archive) -> dict[str, str]:
    if "meta.xml" not in archive:
        return {}
    try:
        root = archive.xml("meta.xml")
    except UnreadableDocument:
        return {}  # the text does not need it
    found = {}
    for element in root.iter("{http://purl.org/dc/elements/1.1/}*"):
        key = {"title": "title", **_METADATA}.get(_name(element))
        if key and element.text:
            found[key] = element.text
    return found


def _name(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]
