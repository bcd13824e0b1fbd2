"""Finds paragraphs and headings in lines of text that know only where and how large they stand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from retrieval.loaders._composer import Composer

_BULLET = re.compile(r"\s*(?:[•●▪■◦‣∙·○❖➢–—*-]|\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)])\s+\S")
_POINT = re.compile(r"\s*[^\w\s\"'“«¿¡]")
_SENTENCE_END = re.compile(r"[.!?:;。！？؟।]['\"”’)\]]*\s*$")
_NUMBERS = re.compile(r"\d+")
_HYPHENATED = re.compile(r"(\w+)\ufffe(\w+)")
_HYPHENS = re.compile(r"\w+(?:-\w+)+")
_MAX_HEADING_CHARACTERS = 150
_MAX_HEADING_LINES = 3
_LARGER = 1.12
_BOLDER = 150
_SAME = 1.08
_MAX_SIZES = 4


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page; lengths in points, the origin at the lower left."""

    text: str
    left: float
    top: float
    bottom: float
    last_bottom: float
    """Of its last character: another row where words were joined across a hyphen."""
    weight: int
    """400 is regular, 700 bold."""

    @property
    def size(self) -> float:
        return self.top - self.bottom


@dataclass(frozen=True, slots=True)
class Page:
    number: int
    lines: Sequence[Line]


def add_pages(
    composer: Composer, pages: Sequence[Page], outline: Mapping[int, Mapping[str, int]]
) -> None:
    """Add the pages' paragraphs and headings.

    Args:
        composer: receives them.
        pages: in order.
        outline: heading levels by page number and title, its letters and digits alone.
    """
    fonts = _Fonts.of(pages)
    entries = sum(map(len, outline.values()))
    guess = entries < max(5, len(pages) // 20)
    hyphens = _Hyphens.of(pages)
    for page in pages:
        titles = outline.get(page.number, {})
        for group in _groups(page, fonts):
            for kind_level, lines in _with_titles(group, titles, fonts if guess else None):
                text = hyphens.join("\n".join(line.text.strip(" ") for line in lines))
                if kind_level:
                    composer.add(
                        "heading", " ".join(text.split()), level=kind_level, page=page.number
                    )
                elif _BULLET.match(text):
                    composer.add("list_item", text, page=page.number)
                else:
                    composer.add("paragraph", text, page=page.number)


@dataclass(frozen=True, slots=True)
class _Fonts:
    """What is usual in the document, and which sizes stand out."""

    size: float
    weight: int
    larger: tuple[float, ...]
    running: frozenset[str]
    """Lines that come back page after page, their numbers left out: headers and footers."""

    @classmethod
    def of(cls, pages: Sequence[Page]) -> _Fonts:
        sizes: Counter[float] = Counter()
        weights: Counter[int] = Counter()
        places: Counter[str] = Counter()
        standing_out: set[float] = set()
        for page in pages:
            for line in page.lines:
                size = _rounded(line.size)
                sizes[size] += len(line.text)
                weights[line.weight] += len(line.text)
                if _is_wordy(line.text):
                    standing_out.add(size)
            places.update({_without_numbers(line.text) for line in page.lines})
        size = sizes.most_common(1)[0][0] if sizes else 0.0
        weight = weights.most_common(1)[0][0] if weights else 400
        often = max(3, len(pages) // 20)
        running = frozenset(text for text, count in places.items() if count > often)
        return cls(size, weight, _ranks(standing_out, size), running)

    def is_bold(self, line: Line) -> bool:
        return line.weight >= self.weight + _BOLDER

    def level(self, lines: Sequence[Line]) -> int:
        """The heading level that the lines' look gives them; 0 for body text."""
        text = " ".join(line.text for line in lines)
        if len(lines) > _MAX_HEADING_LINES or len(text) > _MAX_HEADING_CHARACTERS:
            return 0
        if (
            _POINT.match(text)
            or not _is_wordy(text)
            or _without_numbers(lines[0].text) in self.running
        ):
            return 0
        size = _rounded(min(line.size for line in lines))
        if size > self.size * _LARGER:
            rank = sum(other > size * _SAME for other in self.larger)
            return min(rank, _MAX_SIZES - 1) + 1
        bold = all(map(self.is_bold, lines))
        if bold and not text.rstrip().endswith((".", ",", ";", ":")):
            return min(len(self.larger), _MAX_SIZES) + 2 if self.larger else 3
        return 0


@dataclass(frozen=True, slots=True)
class _Hyphens:
    """Mends words that PDFium joined at the end of a line, marking where the hyphen stood."""

    compounds: frozenset[str]
    words: frozenset[str]

    @classmethod
    def of(cls, pages: Sequence[Page]) -> _Hyphens:
        if not any("\ufffe" in line.text for page in pages for line in page.lines):
            return cls(frozenset(), frozenset())
        compounds: set[str] = set()
        words: set[str] = set()
        for page in pages:
            for line in page.lines:
                lowered = line.text.lower()
                compounds.update(_HYPHENS.findall(lowered))
                words.update(lowered.split())
        return cls(frozenset(compounds), frozenset(words))

    def join(self, text: str) -> str:
        """Keep the hyphen only of compounds that the document writes elsewhere."""
        if "\ufffe" not in text:
            return text
        return _HYPHENATED.sub(self._joined, text).replace("\ufffe", "-")

    def _joined(self, match: re.Match[str]) -> str:
        left, right = match.groups()
        compound = f"{left}-{right}".lower()
        keep = compound in self.compounds and (left + right).lower() not in self.words
        return f"{left}-{right}" if keep else left + right


def _groups(page: Page, fonts: _Fonts) -> Iterator[list[Line]]:
    """Lines that make up one paragraph or heading each."""
    lead = _lead(page.lines, fonts)
    group: list[Line] = []
    for line in page.lines:
        if not line.text:
            if group:
                yield group
            group = []
            continue
        if group and _begins_anew(group[-1], line, fonts, lead):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _lead(lines: Sequence[Line], fonts: _Fonts) -> float:
    """The usual distance from one line's foot to the next one's."""
    pairs = zip(lines, lines[1:], strict=False)
    advances = [
        before.last_bottom - line.bottom
        for before, line in pairs
        if 0.5 * line.size < before.last_bottom - line.bottom < 3 * line.size
    ]
    return median(advances) if advances else 1.2 * fonts.size


def _begins_anew(before: Line, line: Line, fonts: _Fonts, lead: float) -> bool:
    if _BULLET.match(line.text):
        return True
    if min(len(line.text.strip()), len(before.text.strip())) > 2:  # not a superscript
        if abs(line.size - before.size) > 0.12 * max(line.size, before.size):
            return True
        if fonts.is_bold(before) != fonts.is_bold(line):
            return True
    advance = before.last_bottom - line.bottom
    ended = _SENTENCE_END.search(before.text) is not None
    if advance < -0.5 * line.size:  # the next column
        return ended
    if advance > 1.4 * max(lead, line.size):
        return True
    indented = line.left > before.left + 0.8 * line.size
    return ended and indented and advance > 0.5 * line.size


def _with_titles(
    group: list[Line], titles: Mapping[str, int], fonts: _Fonts | None
) -> Iterator[tuple[int, list[Line]]]:
    """The group as a heading (its level) or as body (0); a title at its top is split off.

    Without `fonts` the outline alone decides.
    """
    for count in range(1, min(len(group), _MAX_HEADING_LINES) + 1) if titles else ():
        title = "".join(filter(str.isalnum, "".join(line.text for line in group[:count]).lower()))
        level = titles.get(title) or titles.get(title.lstrip("0123456789"))
        if level and title:
            yield level, group[:count]
            if group[count:]:
                yield 0, group[count:]
            return
    yield fonts.level(group) if fonts else 0, group


def _ranks(sizes: set[float], body: float) -> tuple[float, ...]:
    """The sizes above the body's, largest first; those that hardly differ count as one."""
    ranks: list[float] = []
    for size in sorted((size for size in sizes if size > body * _LARGER), reverse=True):
        if not ranks or size * _SAME < ranks[-1]:
            ranks.append(size)
    return tuple(ranks)


def _is_wordy(text: str) -> bool:
    return sum(character.isalpha() for character in text) >= max(3, len(text) // 3)


def _without_numbers(text: str) -> str:
    return _NUMBERS.sub("", text).strip()


def _rounded(size: float) -> float:
    return round(size * 2) / 2
