"""Word: headings by style, paragraphs, lists, tables and notes, in the order of the body."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lxml import etree

from infra.contracts import Document
from infra.errors import Damaged
from retrieval.loaders._archive import Archive
from retrieval.loaders._composer import Composer
from retrieval.loaders._properties import core_properties
from retrieval.loaders._rows import row_line
from retrieval.media_types import WORD

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({WORD})

# Files in the strict dialect use other namespaces for the same names: names are compared bare.
_CONTAINERS = frozenset(
    "sdt sdtContent customXml ins moveTo smartTag hyperlink AlternateContent Choice".split()  # noqa: SIM905
)
_LEFT_OUT = frozenset(
    "del moveFrom instrText delText pPr rPr tblPr trPr tcPr sectPr sdtPr fldData Fallback".split()  # noqa: SIM905
)
_BREAKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-", "ptab": "\t"}
# A short paragraph all in bold heads what follows, whatever its style.
_HEADING_LIKE = re.compile(r"(?=.{0,20}[^\W\d_]{3})[^\n]{3,99}[^\n.,:;]\Z")
_BOLD_LEVEL = 4
_MAX_CELL_CHARACTERS = 1_500
_OFF = frozenset({"0", "false", "off", "none"})


def load(path: Path, limits: Loading) -> Document:
    """Read the body and its foot- and endnotes; page headers and footers are left out."""
    with Archive(path, limits) as archive:
        main = archive.main_part(otherwise="word/document.xml")
        body = next((part for part in archive.xml(main) if _name(part) == "body"), None)
        if body is None:
            raise Damaged(f"Its part {main!r} holds no document body")
        folder = posixpath.dirname(main)
        composer = Composer(WORD, limits)
        _Body(composer, _styles(archive, f"{folder}/styles.xml")).add(body)
        for notes in ("footnotes.xml", "endnotes.xml"):
            _add_notes(composer, archive, f"{folder}/{notes}")
        properties = core_properties(archive)
    return composer.document(title=properties.pop("title", ""), metadata=properties)


@dataclass(frozen=True, slots=True)
class _Style:
    level: int = 0
    """Of a heading; 0 for other paragraphs."""
    is_list: bool = False
    is_hidden: bool = False


class _Body:
    def __init__(self, composer: Composer, styles: dict[str, _Style]) -> None:
        self._composer = composer
        self._styles = styles

    def add(self, container: etree._Element) -> None:
        """Add the paragraphs and tables of `container`, seeing through wrappers."""
        for element in container:
            name = _name(element)
            if name == "p":
                self._add_paragraph(element)
            elif name == "tbl":
                self._add_table(element)
            elif name in _CONTAINERS:
                self.add(element)

    def _add_paragraph(self, paragraph: etree._Element) -> None:
        style = self._style(paragraph)
        text = self._text(paragraph)
        if style.is_hidden:
            self._composer.hide(text)
        elif style.level:
            self._composer.add("heading", " ".join(text.split()), level=style.level)
        elif not style.is_list and _HEADING_LIKE.match(text.strip()) and _is_bold(paragraph):
            self._composer.add("heading", text, level=_BOLD_LEVEL)
        else:
            self._composer.add("list_item" if style.is_list else "paragraph", text)
        for box in _text_boxes(paragraph):
            self.add(box)

    def _style(self, paragraph: etree._Element) -> _Style:
        properties = _child(paragraph, "pPr")
        if properties is None:
            return _Style()
        named = _child(properties, "pStyle")
        style = self._styles.get(_value(named), _Style()) if named is not None else _Style()
        level = _outline_level(properties) or style.level
        numbering = _child(properties, "numPr")
        is_list = style.is_list or (numbering is not None and not level)
        return _Style(level, is_list, style.is_hidden)

    def _text(self, paragraph: etree._Element) -> str:
        parts: list[str] = []
        walk = etree.iterwalk(paragraph, events=("start",))
        for _, element in walk:
            name = _name(element)
            if name == "r" and _is_hidden(_child(element, "rPr")):
                self._composer.hide("".join(_texts(element)))
                walk.skip_subtree()
            elif name in _LEFT_OUT or name == "txbxContent":
                walk.skip_subtree()
            elif name == "t":
                parts.append(element.text or "")
            elif name in _BREAKS:
                parts.append(_BREAKS[name])
        return "".join(parts)

    def _add_table(self, table: etree._Element) -> None:
        rows = [_cells(row) for row in _children(table, "tr")]
        texts = [[self._cell_text(cell) for cell in row] for row in rows]
        count = sum(len(row) for row in rows)
        longest = max((len(text) for row in texts for text in row), default=0)
        if count == 1 or longest > _MAX_CELL_CHARACTERS:  # it frames text, it holds no data
            for row in rows:
                for cell in row:
                    self.add(cell)
            return
        self._composer.add("table", "\n".join(filter(None, map(row_line, texts))))

    def _cell_text(self, cell: etree._Element) -> str:
        paragraphs = (self._text(p) for p in cell.iter() if _name(p) == "p")
        return " ".join(" ".join(paragraphs).split())


def _add_notes(composer: Composer, archive: Archive, name: str) -> None:
    if name not in archive:
        return
    body = _Body(composer, {})
    for note in archive.xml(name):
        if _attribute(note, "type") in {"", "normal"}:  # the others draw the separator line
            body.add(note)


def _styles(archive: Archive, name: str) -> dict[str, _Style]:
    """Paragraph styles by id, each with what it inherits."""
    if name not in archive:
        return {}
    elements = {_attribute(e, "styleId"): e for e in archive.xml(name) if _name(e) == "style"}
    return {key: _inherited(key, elements) for key in elements}


def _inherited(key: str, elements: dict[str, etree._Element]) -> _Style:
    level, is_list, is_hidden = 0, False, False
    seen: set[str] = set()
    while key in elements and key not in seen:
        seen.add(key)
        element = elements[key]
        label = _value(_child(element, "name")).lower()
        properties = _child(element, "pPr")
        if properties is not None:
            level = level or _outline_level(properties)
            is_list = is_list or _child(properties, "numPr") is not None
        if not level and label.startswith("heading ") and label[8:9].isdecimal():
            level = int(label[8])
        level = level or int(label == "title")
        is_list = is_list or label.startswith("list ")
        is_hidden = is_hidden or _is_hidden(_child(element, "rPr"))
        key = _value(_child(element, "basedOn"))
    return _Style(level, is_list and not level, is_hidden)


def _outline_level(properties: etree._Element) -> int:
    value = _value(_child(properties, "outlineLvl"))
    return int(value) + 1 if value.isdecimal() and int(value) < 9 else 0


def _is_bold(paragraph: etree._Element) -> bool:
    """Whether every run with text is set in bold."""
    runs = [run for run in paragraph.iter() if _name(run) == "r" and "".join(_texts(run)).strip()]
    return bool(runs) and all(_is_on(_child(run, "rPr"), "b") for run in runs)


def _is_hidden(properties: etree._Element | None) -> bool:
    return _is_on(properties, "vanish")


def _is_on(properties: etree._Element | None, name: str) -> bool:
    switch = None if properties is None else _child(properties, name)
    return switch is not None and _value(switch).lower() not in _OFF


def _text_boxes(paragraph: etree._Element) -> Iterator[etree._Element]:
    walk = etree.iterwalk(paragraph, events=("start",))
    for _, element in walk:
        if _name(element) == "Fallback":
            walk.skip_subtree()
        elif _name(element) == "txbxContent":
            walk.skip_subtree()
            yield element


def _cells(row: etree._Element) -> list[etree._Element]:
    cells = []
    for element in row:
        if _name(element) == "tc":
            cells.append(element)
        elif _name(element) in _CONTAINERS:
            cells += _cells(element)
    return cells


def _texts(element: etree._Element) -> Iterator[str]:
    return (inner.text or "" for inner in element.iter() if _name(inner) == "t")


def _children(element: etree._Element, name: str) -> Iterator[etree._Element]:
    return (child for child in element if _name(child) == name)


def _child(element: etree._Element, name: str) -> etree._Element | None:
    return next(_children(element, name), None)


def _name(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _value(element: etree._Element | None) -> str:
    return "" if element is None else _attribute(element, "val")


def _attribute(element: etree._Element, name: str) -> str:
    for key, value in element.attrib.items():
        if str(key).rpartition("}")[2] == name:
            return str(value)
    return ""
