"""Who splits: Ragstone's chunker, or a splitter of the operator's with its pieces found again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Chunk, Document
from infra.errors import InvalidConfiguration, UnreadableDocument
from infra.plugins import load
from retrieval.chunking import heading_paths, split

_PACKAGE = "retrieval.adapters"
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits documents into chunks whose text equals the document's at their span."""

    path: str = ""
    """Dotted path of a class with `split_text`, or of a function from a text to its pieces."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the class."""

    @property
    def identity(self) -> str:
        """What chunks depend on, for the recipe; empty for Ragstone's own."""
        if not self.path:
            return ""
        return self.path + (json.dumps(dict(self.options), sort_keys=True) if self.options else "")

    def require(self, identity: str, *, collection: str) -> None:
        """Check that a collection was built with this splitter.

        A recipe never decides by itself which code is run: it may come from elsewhere.

        Raises:
            InvalidConfiguration: it was built with another.
        """
        if identity != self.identity:
            raise InvalidConfiguration(
                f"Collection {collection!r} is split by {identity or 'Ragstone'!r}, the settings"
                f" choose {self.identity or 'Ragstone'!r}; set retrieval.splitter back or use a"
                " new collection"
            )

    def split(
        self,
        document: Document,
        token_spans: NDArray[np.int32],
        *,
        max_tokens: int,
        overlap_tokens: int,
    ) -> list[Chunk]:
        """Split a document; see `retrieval.chunking.split` for the arguments.

        Raises:
            InvalidConfiguration: the splitter cannot be opened or returns no pieces of text.
            UnreadableDocument: a piece is not in the text, or longer than `max_tokens`.
        """
        if not self.path:
            return split(
                document, token_spans, max_tokens=max_tokens, overlap_tokens=overlap_tokens
            )
        pieces = self._pieces(document.text)
        spans = np.asarray(token_spans, dtype=np.int64).reshape(-1, 2)
        return list(_chunks(document, locate(document.text, pieces), spans, max_tokens=max_tokens))

    def _pieces(self, text: str) -> Iterable[str]:
        target = load(_PACKAGE, self.path)
        call: Callable[[str], Any] = target
        if isinstance(target, type):
            try:
                call = target(**self.options).split_text
            except (TypeError, ValueError, AttributeError) as error:
                raise InvalidConfiguration(
                    f"Cannot open the splitter {self.path!r} with {dict(self.options)!r}: {error}"
                ) from error
        pieces = [getattr(piece, "page_content", piece) for piece in call(text)]
        if not all(isinstance(piece, str) for piece in pieces):
            raise InvalidConfiguration(f"The splitter {self.path!r} returns no pieces of text")
        return pieces


def locate(text: str, pieces: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield the span of each piece in `text`, in order; pieces may overlap or leave text out.

    A piece whose white space was changed is found all the same. Of a piece that occurs several
    times, the first place after the start of the piece before it is taken.

    >>> list(locate("one two  three", ["one two", "two three"]))
    [(0, 7), (4, 14)]

    Raises:
        UnreadableDocument: a piece is not part of the text.
    """
    start = 0
    for piece in pieces:
        words = piece.split()
        if not words:
            continue
        found = _find(text, piece.strip(), words, start)
        if found is None:
            shown = piece.strip()[:_SHOWN_CHARACTERS]
            raise UnreadableDocument(
                f"The splitter made {shown!r}, which is not in the text; use one that returns"
                " parts of the text in order, without adding to them"
            )
        yield found
        start = found[0] + 1


def _find(text: str, piece: str, words: list[str], start: int) -> tuple[int, int] | None:
    at = text.find(piece, start)
    if at >= 0:
        return at, at + len(piece)
    match = re.compile(r"\s+".join(map(re.escape, words))).search(text, start)
    return match.span() if match else None


def _chunks(
    document: Document,
    spans: Iterable[tuple[int, int]],
    tokens: NDArray[np.int64],
    *,
    max_tokens: int,
) -> Iterator[Chunk]:
    starts = np.array([block.start for block in document.blocks], dtype=np.int64)
    paths = heading_paths(document)
    for ordinal, (start, end) in enumerate(spans):
        first = int(np.searchsorted(tokens[:, 1], start, side="right"))
        count = max(0, int(np.searchsorted(tokens[:, 0], end, side="left")) - first)
        if count > max_tokens:
            raise UnreadableDocument(
                f"The splitter made a piece of {count} tokens, the collection holds {max_tokens};"
                " lower its chunk size, or raise retrieval.chunk_tokens"
            )
        block = max(0, int(np.searchsorted(starts, start, side="right")) - 1)
        yield Chunk(
            ordinal=ordinal,
            start_char=start,
            end_char=end,
            text=document.text[start:end],
            tokens=count,
            heading=" > ".join(paths[block]) if paths else "",
            page=document.blocks[block].page if paths else None,
        )
