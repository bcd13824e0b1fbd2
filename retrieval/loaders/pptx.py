"""PowerPoint: each slide is a page, its title a heading; with tables and speaker notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lxml import etree

from infra.contracts import Document
from infra.errors import ExceedsLimit
from retrieval.loaders._archive import Archive
from retrieval.loaders._composer import Composer
from retrieval.loaders._properties import core_properties
from retrieval.loaders._rows import row_line
from retrieval.media_types import SLIDES

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({SLIDES})

_TITLES = frozenset({"title", "ctrTitle"})
# They repeat on every slide.
_FURNITURE = frozenset({"dt", "ftr", "hdr", "sldNum", "sldImg"})
_BREAKS = {"br": "\n", "tab": "\t"}


def load(path: Path, limits: Loading) -> Document:
    """Read the slides in the order in which they are shown."""
    with Archive(path, limits) as archive:
        main = archive.main_part(otherwise="ppt/presentation.xml")
        composer = Composer(SLIDES, limits)
        slides = list(_slides(archive, main))
        if len(slides) > limits.max_pages:
            raise ExceedsLimit(f"It has {len(slides)} slides, more than loading.max_pages")
        for number, name in enumerate(slides, start=1):
            _add_slide(composer, archive, name, number)
        properties = core_properties(archive)
    title = properties.pop("title", "")
    if title.lower() in {"powerpoint presentation", "presentation"}:
        title = ""
    return composer.document(
        title=title or composer.first_heading, metadata={**properties, "pages": len(slides)}
    )


def _slides(archive: Archive, main: str) -> Iterator[str]:
    related = archive.relationships(main)
    for element in archive.xml(main).iter("{*}sldId"):
        for key, value in element.attrib.items():
            if str(key).endswith("}id") and str(value) in related:
                yield related[str(value)][1]


def _add_slide(composer: Composer, archive: Archive, name: str, number: int) -> None:
    slide = archive.xml(name)
    if slide.get("show") in {"0", "false"}:
        composer.warn(f"Hidden slide {number} was left out")
        return
    shapes = list(_shapes(slide))
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES]
    for shape in titles:
        text = " ".join(" ".join(_paragraphs(shape)).split())
        composer.add("heading", text, level=1, page=number)
    for shape in shapes:
        if shape not in titles:
            _add_shape(composer, shape, number)
    for kind, target in archive.relationships(name).values():
        if kind == "notesSlide" and target in archive:
            _add_notes(composer, archive.xml(target), number)


def _shapes(slide: etree._Element) -> Iterator[etree._Element]:
    """Shapes with text and tables in document order; of alternatives, the first."""
    walk = etree.iterwalk(slide, events=("start",))
    for _, element in walk:
        name = _name(element)
        if name == "Fallback":
            walk.skip_subtree()
        elif name in {"sp", "graphicFrame"}:
            walk.skip_subtree()
            yield element


def _add_shape(composer: Composer, shape: etree._Element, number: int) -> None:
    if _placeholder(shape) in _FURNITURE:
        return
    properties = next(shape.iter("{*}cNvPr"), None)
    if properties is not None and properties.get("hidden") in {"1", "true"}:
        composer.hide(" ".join(_paragraphs(shape)))
        return
    for table in shape.iter("{*}tbl"):
        rows = (row.iterchildren("{*}tc") for row in table.iterchildren("{*}tr"))
        lines = (row_line([" ".join(_paragraphs(cell)) for cell in row]) for row in rows)
        composer.add("table", "\n".join(filter(None, lines)), page=number)
        return
    paragraphs = [text for text in _paragraphs(shape) if text.strip()]
    is_list = len(paragraphs) > 1 and _placeholder(shape) in {"body", "obj"}
    for text in paragraphs:
        composer.add("list_item" if is_list else "paragraph", text, page=number)


def _add_notes(composer: Composer, notes: etree._Element, number: int) -> None:
    for shape in _shapes(notes):
        if _placeholder(shape) == "body":
            for text in _paragraphs(shape):
                composer.add("paragraph", text, page=number)


def _paragraphs(shape: etree._Element) -> list[str]:
    texts = []
    for paragraph in shape.iter("{*}p"):
        parts = [
            element.text or "" if _name(element) == "t" else _BREAKS.get(_name(element), "")
            for element in paragraph.iter()
        ]
        texts.append("".join(parts))
    return texts


def _placeholder(shape: etree._Element) -> str:
    """The role of a placeholder; empty for a shape that is none."""
    for placeholder in shape.iter("{*}ph"):
        return str(placeholder.get("type") or "obj")
    return ""


def _name(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]
