"""Plain text: paragraphs between blank lines, and the headings of books and reStructuredText."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from infra.contracts import Document
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({"text/plain", "text/xml"})

_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
_DIVISION = re.compile(
    r"(?:(?P<whole>part|book|volume)|chapter|appendix|section|article|annex)\s+"
    r"(?:[ivxlcdm]+|[\d.]+[a-z]?|[a-z]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|thirteen|fourteen|fifteen|first|second|third|fourth|fifth)\b(?!\s+(?-i:[a-z]))"
    r"|(?:epilogue|prologue|preface|introduction|contents|conclusion)\W*$",
    re.IGNORECASE,
)
_DECLARED = re.compile(rb"<\?xml[^>]{0,200}encoding\s*=\s*[\"']([\w.-]{1,40})")
_UNDERLINE = re.compile(r"([=\-~^\"'#*+])\1{2,}$")
_ORG_HEADING = re.compile(r"(\*{1,6}) \S")
_MAX_HEADING_CHARACTERS = 100


def load(path: Path, limits: Loading) -> Document:
    """Read a text file in any encoding."""
    data = path.read_bytes()
    declared = _DECLARED.search(data[:300])
    decoded = decode(data, declared=declared.group(1).decode() if declared else None)
    is_xml = decoded.text.lstrip()[:5] == "<?xml"
    composer = Composer("text/xml" if is_xml else "text/plain", limits)
    for warning in decoded.warnings:
        composer.warn(warning)
    if is_xml:
        composer.add("code", decoded.text)
    else:
        add_paragraphs(composer, decoded.text)
    return composer.document(metadata={"encoding": decoded.encoding})


def add_paragraphs(composer: Composer, text: str, *, page: int | None = None) -> None:
    """Add the text's paragraphs, as headings where they are written like one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for paragraph in _BLANK_LINES.split(text):
        _add_paragraph(composer, paragraph.strip(), page)


def _add_paragraph(composer: Composer, paragraph: str, page: int | None) -> None:
    first, _, rest = paragraph.partition("\n")
    second, _, body = rest.partition("\n")
    underline = _UNDERLINE.match(second.strip())
    level = _heading_level(first)
    if underline and len(first) <= _MAX_HEADING_CHARACTERS:
        composer.add(
            "heading",
            f"{first}\n{second}",
            level=1 if underline.group(1) in "=#*" else 2,
            page=page,
        )
        composer.add("paragraph", body, page=page)
    elif level and (not rest or len(first) < 40):
        composer.add("heading", first, level=level, page=page)
        composer.add("paragraph", rest, page=page)
    else:
        composer.add("paragraph", paragraph, page=page)


def _heading_level(line: str) -> int:
    if len(line) > _MAX_HEADING_CHARACTERS or line.endswith((".", ",", ";", "?", "!")):
        return 0
    starred = _ORG_HEADING.match(line)
    if starred:
        return len(starred.group(1))
    division = _DIVISION.match(line)
    if not division or not line[:1].isupper():
        return 0
    return 1 if division.group("whole") else 2
