"""Leakage: cases that a model may have been trained on, word for word or nearly."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

from evals.trial import Case
from infra.errors import InvalidRequest
from infra.near_texts import NearTexts
from infra.words import UNSPACED

SIMILARITY = 0.8
WINDOW = 8
"""Words in a row by which a question is found within a longer text; of scripts that part no words,
two characters count as one."""
_WORD = re.compile(rf"[^\W_{UNSPACED}]+(?:[.,]\d+)*|[{UNSPACED}]+")
_CHARACTER = re.compile(f"[{UNSPACED}]")
_PIECE = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")

Kind: TypeAlias = Literal["exact", "contained", "near"]
_TEXT: tuple[str, ...] = ()
_ORDER: tuple[Kind, ...] = ("exact", "contained", "near")


@dataclass(frozen=True, slots=True)
class Leak:
    """A case, and the row of the training set that gives it away."""

    case: str
    kind: Kind
    similarity: float
    """Jaccard's, of pieces of three words; 1 where it is not `near`."""
    row: str
    """Where it stands."""
    text: str
    """What stands there, cut."""


def find(
    cases: Sequence[Case],
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    similarity: float = SIMILARITY,
) -> list[Leak]:
    """Return the worst leak of each case that has one, in the order of cases.

    Of texts, letters and digits are compared without case, accents' forms and punctuation; of rows
    of features, the values. A reference is not looked for: that 28 is an answer gives nothing away.

    Args:
        cases: of the suite.
        rows: of the training set, each with where it stands; read once, none is kept.
        similarity: from which a text is `near`.

    Raises:
        InvalidRequest: there is no row, or some cases can be held against none.
        MissingDependency: the extra `data` is not installed.
    """
    index = _Index(cases, similarity)
    worst: dict[str, Leak] = {}
    columns: tuple[str, ...] | None = None
    for place, row in rows:
        columns = tuple(row) if columns is None else columns
        for leak in index.leaks(place, row):
            known = worst.get(leak.case)
            if known is None or _rank(leak) < _rank(known):
                worst[leak.case] = leak
    if columns is None:
        raise InvalidRequest("The training set has no row, so that nothing can be told of leaks")
    if missed := index.missed():
        raise InvalidRequest(
            f"No row of the training set has {missed}; its first has {', '.join(columns)}. Give "
            "the columns the same names, or the set that the model was trained on"
        )
    return [worst[case.id] for case in cases if case.id in worst]


def normal(text: str) -> str:
    """Return the words of a text in their simplest form.

    >>> normal("Wie  VIELE Tage\u00a0Urlaub, bitte?")
    'wie viele tage urlaub bitte'
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


class _Index:
    """The cases, by all that they can be found by."""

    def __init__(self, cases: Sequence[Case], similarity: float) -> None:
        self._ids = [case.id for case in cases]
        self._texts = [normal(case.question) for case in cases]
        self._exact: dict[str, list[int]] = {}
        self._starts: dict[tuple[str, ...], list[int]] = {}
        self._features: dict[tuple[str, ...], dict[bytes, list[int]]] = {}
        self._near = NearTexts(self._texts, similarity)
        self._unmet: set[tuple[str, ...]] = set()
        """The fields of cases that no row had so far; none of them stands for a text."""
        for place, case in enumerate(cases):
            if isinstance(case.input, Mapping):
                names = tuple(sorted(case.input))
                self._unmet.add(names)
                by_value = self._features.setdefault(names, {})
                by_value.setdefault(_values(case.input, names), []).append(place)
                continue
            self._unmet.add(_TEXT)
            if text := self._texts[place]:
                if text not in self._exact:
                    self._near.add(place)
                self._exact.setdefault(text, []).append(place)
                pieces = _PIECE.findall(text)
                if _words_in(pieces) >= WINDOW:
                    self._starts.setdefault(tuple(pieces[:WINDOW]), []).append(place)

    def leaks(self, row: str, columns: Mapping[str, Any]) -> Iterator[Leak]:
        for names, by_value in self._features.items():
            if all(name in columns for name in names):
                self._unmet.discard(names)
                shown = ", ".join(f"{name} {columns[name]}" for name in names)
                for place in by_value.get(_values(columns, names), ()):
                    yield Leak(self._ids[place], "exact", 1.0, row, _short(shown))
        for text in _texts(columns):
            for place, kind, similarity in self._found(normal(text)):
                yield Leak(self._ids[place], kind, similarity, row, _short(text))

    def missed(self) -> str:
        """Return what cases have and no row had, in words; empty if each could be looked for."""
        for names in sorted(self._unmet):
            return f"the fields {', '.join(names)} of cases" if names != _TEXT else "a text"
        return ""

    def _found(self, text: str) -> Iterator[tuple[int, Kind, float]]:
        if not text or not self._exact:
            return
        self._unmet.discard(_TEXT)
        if text in self._exact:
            for place in self._exact[text]:
                yield place, "exact", 1.0
            return
        for place in self._contained(text):
            yield place, "contained", 1.0
        for place, similarity in self._near.near(text):
            for twin in self._exact[self._texts[place]]:
                yield twin, "near", similarity

    def _contained(self, text: str) -> Iterator[int]:
        if not self._starts:
            return
        pieces = _PIECE.findall(text)
        for start in range(len(pieces) - WINDOW + 1):
            for place in self._starts.get(tuple(pieces[start : start + WINDOW]), ()):
                wanted = _PIECE.findall(self._texts[place])
                if pieces[start : start + len(wanted)] == wanted:
                    yield place


def _words_in(pieces: Sequence[str]) -> float:
    """Return how many words there are; two characters of a script that parts none count as one."""
    return sum(0.5 if _CHARACTER.match(each) else 1.0 for each in pieces)


def _short(text: str) -> str:
    return " ".join(text[:200].split())


def _rank(leak: Leak) -> tuple[int, float]:
    return _ORDER.index(leak.kind), -leak.similarity


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a row, also those within messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _values(row: Mapping[str, Any], names: Sequence[str]) -> bytes:
    """Return the values of a row, however its file writes numbers."""
    return orjson.dumps([_plain(row[name]) for name in names], default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    return str(value).strip()
