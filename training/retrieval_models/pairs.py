"""Rows become questions with passages of the collection; what is wrong is told by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.problems import SHOWN_ROWS, Problem, at_rows
from training.retrieval_models.corpus import Corpus, Piece
from training.retrieval_models.specification import Limits
from training.row_source import Row, Unreadable
from training.row_text import digest

ACCEPTED = ("accepted", "edited")
"""Of a row that was proposed for a test set, what lets it in."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with a passage that answers it."""

    key: str
    """Where its row came from, such as `data.train`."""
    row: int
    """Counted from 1."""
    question: str
    positives: tuple[Piece, ...]
    negatives: tuple[str, ...] = ()
    """Texts that its row says do not answer it."""
    documents: frozenset[str] = frozenset()
    """That answer it."""

    @property
    def asked(self) -> bytes:
        """Equal for questions that ask the same, up to case and white space."""
        return digest(self.question.casefold())


@dataclass(slots=True)
class Reading:
    """Reads one source, and remembers what was wrong with which rows."""

    key: str
    limits: Limits
    corpus: Corpus
    rows: int = 0
    left_out: int = 0
    """Rows of test sets that nobody has accepted, or that have no answer."""
    _wrong: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _again: list[int] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)

    def read(self, batches: Iterable[list[Row]]) -> Iterator[Pair]:
        """Yield what can be learned from."""
        for batch in batches:
            for row in batch:
                self.rows += 1
                pair = self._pair(row)
                if pair is not None:
                    yield pair

    def problems(self) -> Iterator[Problem]:
        """Return what is over the limits; and that nothing is left, if so."""
        unusable = sum(len(rows) for rows in self._wrong.values())
        if self.rows == 0:
            yield Problem("rows", self.key, "there is no row")
        elif unusable / self.rows > self.limits.max_unusable:
            for why, rows in self._wrong.items():
                yield Problem("rows", at_rows(self.key, rows[:SHOWN_ROWS], total=len(rows)), why)
        share = len(self._again) / max(1, self.rows)
        if share > self.limits.max_duplicates:
            where = at_rows(self.key, self._again[:SHOWN_ROWS], total=len(self._again))
            what = f"the same as earlier rows, {share:.1%} of all; limits.max_duplicates is "
            yield Problem("duplicates", where, f"{what}{self.limits.max_duplicates:.1%}")

    def _pair(self, row: Row) -> Pair | None:
        found = self._understood(row)
        if isinstance(found, str):
            self._wrong[found].append(self.rows)
            return None
        if found is None:
            self.left_out += 1
            return None
        mark = digest(f"{found.asked.hex()} {sorted(piece.key for piece in found.positives)}")
        if mark in self._seen:
            self._again.append(self.rows)
            return None
        self._seen.add(mark)
        return found

    def _understood(self, row: Row) -> Pair | str | None:
        """Return what a row says; what is wrong with it; or nothing, if it is not to be used."""
        if isinstance(row, Unreadable):
            return row.why
        state = row.get("review_state")
        if (state is not None and state not in ACCEPTED) or row.get("answerable") is False:
            return None
        question = row.get("question")
        if not isinstance(question, str) or not question.strip():
            return "there is no text in 'question'"
        negatives = _texts(row.get("negatives"))
        if negatives is None:
            return "'negatives' is no list of texts"
        names = _documents(row.get("relevant"))
        if isinstance(names, str):
            return names
        found = self._positives(row, question, names)
        if isinstance(found, str):
            return found
        documents = self._all_that_answer(names, found)
        if isinstance(documents, str):
            return documents
        return Pair(self.key, self.rows, question.strip(), found, tuple(negatives), documents)

    def _positives(
        self, row: Mapping[str, Any], question: str, names: Sequence[str]
    ) -> tuple[Piece, ...] | str:
        """Return the passages that answer, or what is wrong."""
        words = _passages(row.get("positive") or row.get("evidence"))
        if words is None:
            return "'positive' is no text or list of texts"
        if not words and not names:
            return "there is no text in 'positive', and no document in 'relevant'"
        found: dict[int, Piece] = {}
        if not words:
            for name in names:
                best = self.corpus.best_of(name, question)
                if best is None:
                    return self._no_document(name)
                found[best.key] = best
        only = names[0] if len(names) == 1 else None
        for text, place in words:
            pieces = self.corpus.holding(text, place or only)
            if not pieces:
                return f"the passage is not in {self.corpus.name!r}"
            found |= {piece.key: piece for piece in pieces}
        return tuple(found.values())

    def _all_that_answer(
        self, names: Sequence[str], found: Sequence[Piece]
    ) -> frozenset[str] | str:
        """Return the documents of passages and those named beside them, or what is wrong."""
        documents = {piece.document for piece in found}
        answering = set(documents)
        for name in names:
            known = self.corpus.named(name)
            if not known:
                return self._no_document(name)
            # The end of a path can name several: a passage that was found tells which is meant.
            if not known & documents:
                answering |= known
        return frozenset(answering)

    def _no_document(self, name: str) -> str:
        return f"the document {name!r} is not in {self.corpus.name!r}"


def _texts(value: Any) -> list[str] | None:
    """Return texts that a row gives alone or in a list; None if it is neither."""
    if value is None:
        return []
    many = [value] if isinstance(value, str) else value
    if not isinstance(many, list | tuple) or not all(isinstance(each, str) for each in many):
        return None
    return [each for each in many if each.strip()]


def _passages(value: Any) -> list[tuple[str, str | None]] | None:
    """Return passages that a row gives alone or in a list, as words and the document they are of.

    None if it is neither. A passage is its words, or has `text` and perhaps `document`.
    """
    many = value if isinstance(value, list | tuple) else [] if value is None else [value]
    found: list[tuple[str, str | None]] = []
    for each in many:
        text, place = each, None
        if isinstance(each, Mapping):
            text, place = each.get("text"), each.get("document")
        if not isinstance(text, str) or not isinstance(place, str | None):
            return None
        if text.strip():
            found.append((text, place))
    return found


def _documents(value: Any) -> list[str] | str:
    """Return the documents that are relevant, by name, by names or by names with grades."""
    if isinstance(value, Mapping):
        try:
            return [str(name) for name, grade in value.items() if grade and float(grade) > 0]
        except (TypeError, ValueError):
            return "a grade in 'relevant' is no number"
    names = _texts(value)
    return "'relevant' is no name, list of names, or names with grades" if names is None else names
