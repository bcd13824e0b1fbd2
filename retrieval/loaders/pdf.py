"""PDF: the text layer page by page; headings from the outline, type size and weight."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.contracts import Document
from infra.errors import Damaged, EmptyDocument, Encrypted, ExceedsLimit
from infra.plugins import require
from retrieval.loaders._composer import Composer
from retrieval.loaders._layout import Line, Page, add_pages
from retrieval.loaders._right_to_left import has_right_to_left, in_reading_order

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({"application/pdf"})

_PASSWORD_ERROR = 4
_METADATA = {
    "Author": "author",
    "Subject": "subject",
    "Keywords": "keywords",
    "CreationDate": "created",
    "ModDate": "modified",
}
_MAX_OUTLINE_ENTRIES = 20_000
_UNTITLED = ("untitled", "(anonymous)", "microsoft word - ", "powerpoint presentation")


def load(path: Path, limits: Loading) -> Document:
    """Read the text layer; pages that have none are named in a warning.

    Raises:
        Encrypted: it needs a password to be opened.
        EmptyDocument: no page has a text layer, as in a scan.
    """
    pdfium = require("pypdfium2", extra="retrieval")
    composer = Composer("application/pdf", limits)
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD_ERROR:
            raise Encrypted("It is behind a password; save it without one") from error
        raise Damaged(f"It is not readable as a PDF: {error}") from error
    try:
        count = len(document)
        if count > limits.max_pages:
            raise ExceedsLimit(f"It has {count:,} pages; split it, or raise loading.max_pages")
        pages = _pages(document, composer)
        _report_missing_text(composer, pages, count)
        add_pages(composer, pages, _outline(document))
        title, metadata = _metadata(document)
    finally:
        document.close()
    return composer.document(title=title, metadata={**metadata, "pages": count})


def _pages(document: Any, composer: Composer) -> list[Page]:
    pdfium = require("pypdfium2", extra="retrieval")
    pages: list[Page] = []
    characters = 0
    for index in range(len(document)):
        try:
            page = document[index]
            text_page = page.get_textpage()
        except pdfium.PdfiumError:
            composer.warn(f"Page {index + 1} is damaged and was left out")
            continue
        characters += text_page.count_chars()
        if characters > composer.limits.max_text_characters:
            raise ExceedsLimit("It holds more text than loading.max_text_characters; split it")
        pages.append(Page(index + 1, list(_lines(text_page))))
        text_page.close()
        page.close()
    return pages


def _lines(text_page: Any) -> Iterator[Line]:
    text = text_page.get_text_range()
    position = 0  # in UTF-16 units, which PDFium counts in
    for line in text.split("\r\n"):
        units = len(line) + sum(character > "\uffff" for character in line)
        if line.strip():
            first = len(line) - len(line.lstrip())
            yield _line(text_page, line, position + first, position + len(line.rstrip()) - 1)
        else:
            yield Line("", 0, 0, 0, 0, 0)
        position += units + 2


def _line(text_page: Any, text: str, first: int, last: int) -> Line:
    raw = require("pypdfium2.raw", extra="retrieval")
    start = raw.FPDFText_GetCharIndexFromTextIndex(text_page, first)
    end = raw.FPDFText_GetCharIndexFromTextIndex(text_page, max(first, last))
    left, bottom, _, top = _box(raw, text_page, start)
    _, last_bottom, _, _ = _box(raw, text_page, end)
    if has_right_to_left(text):
        text = _in_reading_order(raw, text_page, text, first)
    weight = raw.FPDFText_GetFontWeight(text_page, (start + end) // 2)
    return Line(text, left, top, bottom, last_bottom, weight)


def _box(raw: Any, text_page: Any, index: int) -> tuple[float, float, float, float]:
    """Left, bottom, right, top in points; the height is the font's, not the letter's."""
    box = raw.FS_RECTF()
    if index < 0 or not raw.FPDFText_GetLooseCharBox(text_page, index, ctypes.byref(box)):
        return 0.0, 0.0, 0.0, 0.0
    return box.left, box.bottom, box.right, box.top


def _in_reading_order(raw: Any, text_page: Any, text: str, first: int) -> str:
    offset = first - (len(text) - len(text.lstrip()))

    def x(index: int) -> float:
        found = raw.FPDFText_GetCharIndexFromTextIndex(text_page, offset + index)
        return _box(raw, text_page, found)[0]

    return in_reading_order(text, x)


def _outline(document: Any) -> dict[int, dict[str, int]]:
    """Heading levels by page number and by title, as the bookmarks give them."""
    pdfium = require("pypdfium2", extra="retrieval")
    levels: dict[int, dict[str, int]] = {}
    try:
        for count, entry in enumerate(document.get_toc(max_depth=6)):
            destination = entry.get_dest()
            index = destination.get_index() if destination is not None else None
            if index is not None:
                title = "".join(filter(str.isalnum, entry.get_title().lower()))
                levels.setdefault(index + 1, {})[title] = entry.level + 1
            if count >= _MAX_OUTLINE_ENTRIES:
                break
    except (pdfium.PdfiumError, ValueError, UnicodeDecodeError):
        return {}  # the text does not need it
    return levels


def _report_missing_text(composer: Composer, pages: list[Page], count: int) -> None:
    blank = [page.number for page in pages if not any(line.text for line in page.lines)]
    if count == 0 or (not pages and count):
        raise Damaged("None of its pages can be read")
    if len(blank) == len(pages):
        noun = "page" if count == 1 else "pages"
        raise EmptyDocument(
            f"It has {count} {noun} without a text layer, as scans do; run text recognition first"
        )
    if blank:
        named = ", ".join(map(str, blank[:10])) + (", ..." if len(blank) > 10 else "")
        composer.warn(f"{len(blank)} of {count} pages have no text layer (page {named})")


def _metadata(document: Any) -> tuple[str, dict[str, str]]:
    pdfium = require("pypdfium2", extra="retrieval")
    try:
        found = document.get_metadata_dict(skip_empty=True)
    except (pdfium.PdfiumError, UnicodeDecodeError):
        return "", {}
    title = found.get("Title", "").strip()
    if title.lower().startswith(_UNTITLED):
        title = ""
    metadata = {_METADATA[key]: value for key, value in found.items() if key in _METADATA}
    for key in ("created", "modified"):
        if key in metadata:
            metadata[key] = _date(metadata[key])
    return title, metadata


def _date(value: str) -> str:
    """`D:20240131120000Z` as `2024-01-31`; anything else as nothing."""
    digits = value.removeprefix("D:")[:8]
    if len(digits) != 8 or not digits.isdecimal():
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
