"""Splits a document into chunks of bounded tokens along its headings, blocks and sentences."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Block, Chunk, Document
from infra.errors import InvalidConfiguration
from infra.sentences import sentence_spans

MAX_CHARACTERS_PER_TOKEN = 24
"""Bounds a chunk where tokens do not: to a tokenizer a megabyte without spaces may be one."""

_SECTION_LEVEL = 2
_TINY_SHARE = 4  # a section below a quarter of the budget joins its neighbour
_MAX_LABEL_CHARACTERS = 80
_LINE = re.compile(r"[^\n]+")
_LABEL_MARKUP = re.compile(r"^[#*=\s]+")
# How much a boundary is worth, as a share of the budget by which it may miss the ideal place.
_BEFORE_HEADING, _BETWEEN_BLOCKS, _AFTER_HEADING = 0.5, 0.3, -1.0


def split(
    document: Document, token_spans: NDArray[np.int32], *, max_tokens: int, overlap_tokens: int
) -> list[Chunk]:
    """Split `document` into chunks that cover every character but white space, in order.

    A chunk crosses a heading of the first two levels only to join tiny sections. It ends with a
    block, else with a sentence or table row; one that alone exceeds the budget is cut between
    tokens. Neighbours within a section share whole sentences.

    Args:
        document: what a loader returned.
        token_spans: `(tokens, 2)` rising character spans of the tokens of `document.text`.
        max_tokens: of one chunk.
        overlap_tokens: of the sentences that a chunk repeats from the one before, at most.

    Raises:
        InvalidConfiguration: the two numbers do not fit together.
    """
    if not 0 <= overlap_tokens < max_tokens:
        raise InvalidConfiguration(
            f"Chunks of {max_tokens!r} tokens cannot overlap by {overlap_tokens!r};"
            " set retrieval.chunk_overlap_tokens below retrieval.chunk_tokens"
        )
    spans = np.asarray(token_spans, dtype=np.int64).reshape(-1, 2)
    cutter = _Cutter(document.text, starts=spans[:, 0], ends=spans[:, 1], max_tokens=max_tokens)
    pieces = _Pieces.of(document, cutter)
    packer = _Packer(document, pieces, max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    return [packer.chunk(ordinal, cut) for ordinal, cut in enumerate(packer.cuts())]


@dataclass(frozen=True, slots=True)
class _Cutter:
    """Counts tokens, and cuts what exceeds the budget alone."""

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    max_tokens: int

    @property
    def max_characters(self) -> int:
        return self.max_tokens * MAX_CHARACTERS_PER_TOKEN

    def token_range(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each span the first token that reaches into it, and one past the last."""
        first = np.searchsorted(self.ends, starts, side="right")
        last = np.searchsorted(self.starts, ends, side="left")
        return first, np.maximum(first, last)

    def cut(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Spans within the budget that cover `[start, end)` but for white space."""
        while start < end:
            stop = self._stop(start, end)
            piece = self.text[start:stop]
            body = piece.strip()
            if body:
                first = start + len(piece) - len(piece.lstrip())
                yield first, first + len(body)
            start = stop

    def _stop(self, start: int, end: int) -> int:
        token = int(np.searchsorted(self.ends, start, side="right")) + self.max_tokens
        stop = min(end, start + self.max_characters)
        if token < len(self.starts):
            stop = min(stop, int(self.starts[token]))
        if stop >= end:
            return end
        stop = max(stop, start + 1)
        preferred = self._preferred(start, stop)
        return preferred if preferred > start else stop

    def _preferred(self, start: int, stop: int) -> int:
        """The last line end or space in the second half, else the last whole grapheme."""
        half = start + (stop - start) // 2
        for space in ("\n", " "):
            found = self.text.rfind(space, half, stop + 1)
            if found > start:
                return found
        while stop > start and _joins(self.text[stop - 1], self.text[stop]):
            stop -= 1
        return stop


def _joins(before: str, after: str) -> bool:
    """Whether two characters belong to one grapheme, as far as that shows in the pair."""
    joiner = "\u200d"
    modifier = "\ufe00" <= after <= "\ufe0f" or "\U0001f3fb" <= after <= "\U0001f3ff"
    flags = "\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff"
    mark = unicodedata.category(after) in {"Mn", "Me", "Mc"}
    return joiner in (before, after) or modifier or flags or mark


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What chunks are made of: sentences, rows and headings, in order; equally long columns."""

    start: list[int]
    end: list[int]
    first_token: list[int]
    last_token: list[int]
    block: list[int]
    is_whole: list[bool]
    """False for a part of a sentence that exceeds the budget alone."""

    @classmethod
    def of(cls, document: Document, cutter: _Cutter) -> _Pieces:
        spans = [
            (start, end, number)
            for number, block in enumerate(document.blocks)
            for start, end in _spans(document.text, block)
        ]
        columns = np.array(spans, dtype=np.int64).reshape(-1, 3)
        first, last = cutter.token_range(columns[:, 0], columns[:, 1])
        lengths = columns[:, 1] - columns[:, 0]
        too_large = (last - first > cutter.max_tokens) | (lengths > cutter.max_characters)
        parts = [
            (*part, number, not large)
            for (start, end, number), large in zip(spans, too_large.tolist(), strict=True)
            for part in (cutter.cut(start, end) if large else [(start, end)])
        ]
        cut = np.array(parts, dtype=np.int64).reshape(-1, 4)
        first, last = cutter.token_range(cut[:, 0], cut[:, 1])
        return cls(
            start=cut[:, 0].tolist(),
            end=cut[:, 1].tolist(),
            first_token=first.tolist(),
            last_token=last.tolist(),
            block=cut[:, 2].tolist(),
            is_whole=cut[:, 3].astype(bool).tolist(),
        )


def _spans(text: str, block: Block) -> Iterator[tuple[int, int]]:
    content = text[block.start : block.end]
    if block.kind == "heading":
        yield block.start, block.end
    elif block.kind in {"table", "code"}:
        for match in _LINE.finditer(content):
            line = match.group()
            body = line.strip()
            if body:
                first = block.start + match.start() + len(line) - len(line.lstrip())
                yield first, first + len(body)
    else:
        for start, end in sentence_spans(content):
            yield block.start + start, block.start + end


@dataclass(frozen=True, slots=True)
class _Cut:
    """A chunk as a range of pieces."""

    overlap: int
    """The first piece, repeated from the chunk before when it differs from `start`."""
    start: int
    end: int


class _Packer:
    """Fills chunks with pieces, section by section."""

    def __init__(
        self, document: Document, pieces: _Pieces, *, max_tokens: int, overlap_tokens: int
    ) -> None:
        self._document = document
        self._pieces = pieces
        self._max_tokens = max_tokens
        self._max_characters = max_tokens * MAX_CHARACTERS_PER_TOKEN
        self._overlap_tokens = overlap_tokens
        self._is_heading = [document.blocks[block].kind == "heading" for block in pieces.block]
        self._paths = heading_paths(document)

    def cuts(self) -> Iterator[_Cut]:
        for start, end in self._merged(self._sections()):
            yield from self._pack(start, end)

    def chunk(self, ordinal: int, cut: _Cut) -> Chunk:
        start, end = self._pieces.start[cut.overlap], self._pieces.end[cut.end - 1]
        return Chunk(
            ordinal=ordinal,
            start_char=start,
            end_char=end,
            text=self._document.text[start:end],
            tokens=self._tokens(cut.overlap, cut.end),
            heading=" > ".join(self._path(cut)),
            page=self._document.blocks[self._pieces.block[cut.overlap]].page,
        )

    def _sections(self) -> Iterator[tuple[int, int]]:
        """Ranges of pieces between headings of the first levels; successive headings share one."""
        begin, has_body = 0, False
        for index, block in enumerate(self._pieces.block):
            if self._is_heading[index]:
                if has_body and self._document.blocks[block].level <= _SECTION_LEVEL:
                    yield begin, index
                    begin, has_body = index, False
            else:
                has_body = True
        if begin < len(self._pieces.block):
            yield begin, len(self._pieces.block)

    def _merged(self, sections: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        tiny = self._max_tokens // _TINY_SHARE
        begin, end = -1, -1
        for start, stop in sections:
            if begin < 0:
                begin, end = start, stop
                continue
            is_tiny = self._tokens(begin, end) <= tiny or self._tokens(start, stop) <= tiny
            if is_tiny and self._fits(begin, stop):
                end = stop
            else:
                yield begin, end
                begin, end = start, stop
        if begin >= 0:
            yield begin, end

    def _pack(self, start: int, end: int) -> Iterator[_Cut]:
        overlap = start
        while start < end:
            stop = self._stop(overlap, start, end)
            yield _Cut(overlap, start, stop)
            if stop < end:
                overlap = self._overlap(overlap, start, stop)
            start = stop

    def _stop(self, overlap: int, start: int, end: int) -> int:
        """Where a chunk that begins at `overlap` and must reach beyond `start` ends best."""
        furthest = max(self._furthest(overlap, end), start + 1)
        if furthest >= end:
            return end
        remaining = self._tokens(start, end)
        budget = max(1, self._max_tokens - self._tokens(overlap, start))
        target = remaining / -(-remaining // budget) if remaining else 1.0
        best, best_score = furthest, float("-inf")
        for stop in range(furthest, start, -1):
            tokens = self._tokens(start, stop)
            if tokens < target / 2 and best_score > float("-inf"):
                break
            score = self._worth(stop) - abs(tokens - target) / self._max_tokens
            if score > best_score:
                best, best_score = stop, score
        return best

    def _furthest(self, begin: int, end: int) -> int:
        """One past the last piece that still fits."""
        pieces = self._pieces
        by_tokens = bisect_right(
            pieces.last_token, pieces.first_token[begin] + self._max_tokens, begin, end
        )
        return bisect_right(
            pieces.end, pieces.start[begin] + self._max_characters, begin, by_tokens
        )

    def _worth(self, stop: int) -> float:
        """Of ending a chunk before piece `stop`."""
        if self._is_heading[stop - 1] and not self._is_heading[stop]:
            return _AFTER_HEADING
        if self._is_heading[stop]:
            return _BEFORE_HEADING
        if self._pieces.block[stop] != self._pieces.block[stop - 1]:
            return _BETWEEN_BLOCKS
        return 0.0

    def _overlap(self, previous: int, start: int, stop: int) -> int:
        """The next chunk's first piece: whole sentences back from `stop`, while they fit."""
        if self._is_heading[stop]:
            return stop
        begin = stop
        for index in range(stop - 1, max(previous, start - 1), -1):
            repeated = self._tokens(index, stop) <= self._overlap_tokens
            whole = self._pieces.is_whole[index] and not self._is_heading[index]
            if not (repeated and whole and self._fits(index, stop + 1)):
                break
            begin = index
        return begin

    def _tokens(self, start: int, end: int) -> int:
        if start == end:
            return 0
        return self._pieces.last_token[end - 1] - self._pieces.first_token[start]

    def _fits(self, start: int, end: int) -> bool:
        length = self._pieces.end[end - 1] - self._pieces.start[start]
        return self._tokens(start, end) <= self._max_tokens and length <= self._max_characters

    def _path(self, cut: _Cut) -> Sequence[str]:
        """The headings above the chunk's text; above all of it, where it joins sections."""
        body = [index for index in range(cut.start, cut.end) if not self._is_heading[index]]
        first = self._paths[self._pieces.block[body[0] if body else cut.start]]
        last = self._paths[self._pieces.block[body[-1] if body else cut.end - 1]]
        shared = [a for a, b in zip(first, last, strict=False) if a == b]
        return shared or first


def heading_paths(document: Document) -> list[tuple[str, ...]]:
    """The headings above each block, a heading's own included."""
    open_headings: list[tuple[int, str]] = []
    path: tuple[str, ...] = ()
    paths = []
    for block in document.blocks:
        if block.kind == "heading":
            while open_headings and open_headings[-1][0] >= block.level:
                open_headings.pop()
            open_headings.append((block.level, _label(document.text[block.start : block.end])))
            path = tuple(label for _, label in open_headings)
        paths.append(path)
    return paths


def _label(heading: str) -> str:
    line = _LABEL_MARKUP.sub("", heading).split("\n", 1)[0]
    label = " ".join(line.split()) or " ".join(heading.split())
    return label[:_MAX_LABEL_CHARACTERS]
