"""Whether two forms of a model say the same: logits of rows, and the tokens that follow them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training import adapted_model
from training.sentinel import Aborted

ROWS = 8
"""That both forms are asked."""
ROW_TOKENS = 128
"""Of a row: logits take a number for each of them and each word of the vocabulary."""
NEW_TOKENS = 16
"""That each form goes on with by itself, always with the likeliest."""

Row: TypeAlias = Sequence[int]
Logits: TypeAlias = Callable[[Sequence[Row]], Sequence[NDArray[np.float32]]]
"""Of each row, `(tokens, vocabulary)`."""


class Unlike(Aborted):
    """A form of a model says something else than the model; nothing of it may be registered."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows by which a form is made and compared."""

    compared: Sequence[Row]
    """That both are asked, the first of them."""
    learned: Sequence[Row]
    """Of what was learned from, and not among those asked."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a form of a model says of some rows."""

    rows: tuple[tuple[int, ...], ...]
    logits: tuple[NDArray[np.float32], ...]
    greedy: tuple[tuple[int, ...], ...]
    """How it goes on with each."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a form may be from the model; None sets no bound."""

    max_difference: float | None = None
    """Of a logit."""
    same_greedy: float | None = None
    """The share of rows that both go on with alike."""
    perplexity_ratio: float | None = None
    """Of the form's perplexity on the rows to the model's."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How a form of a model compares with the model."""

    rows: int
    max_difference: float
    """Of a logit; no finite number where a logit of either is none."""
    same_greedy: int
    """Rows that both go on with alike."""
    perplexity_before: float
    perplexity_after: float

    def check(self, bounds: Bounds, *, what: str) -> Parity:
        """Return itself.

        Raises:
            Unlike: it is beyond a bound, or a logit is no number; says which, with the numbers.
        """
        ratio = self.perplexity_after / self.perplexity_before
        found = [
            (self.max_difference, bounds.max_difference, "a logit differs by"),
            (ratio, bounds.perplexity_ratio, "perplexity is times"),
        ]
        said = [
            f"{words} {value:.4g}, and {limit:g} is the most"
            for value, limit, words in found
            if limit is not None and not value <= limit
        ]
        if not np.isfinite(self.max_difference):
            said.insert(0, "a logit is no number")
        share = self.same_greedy / self.rows
        if bounds.same_greedy is not None and not share >= bounds.same_greedy:
            said.append(f"{self.same_greedy} of {self.rows} rows are gone on with alike")
        if said:
            raise Unlike(f"{what} is not the model it was made from: {'; '.join(said)}")
        return self

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def of_model(model: Any) -> Logits:
    """Return how a model of transformers is asked."""
    return lambda rows: [each.numpy() for each in adapted_model.logits(model, rows)]


def cut(rows: Sequence[Row]) -> tuple[tuple[int, ...], ...]:
    """Return the first rows, as far as they are asked."""
    return tuple(tuple(row[:ROW_TOKENS]) for row in rows[:ROWS])


def ask(logits: Logits, rows: Sequence[Row]) -> Said:
    """Ask one form, so that it can be let go of before the other is loaded."""
    asked = cut(rows)
    found = tuple(np.asarray(logits([row])[0], np.float32) for row in asked)
    greedy = tuple(_greedy(logits, row, first) for row, first in zip(asked, found, strict=True))
    return Said(asked, found, greedy)


def compare(before: Said, after: Said) -> Parity:
    """Return how the second compares with the first; both were asked the same rows."""
    pairs = list(zip(before.logits, after.logits, strict=True))
    with np.errstate(invalid="ignore"):  # what is no number is told by `check`
        return Parity(
            len(before.rows),
            # Python's own `max` would drop a NaN of a later row.
            float(np.max([np.abs(one - other).max() for one, other in pairs])),
            sum(one == other for one, other in zip(before.greedy, after.greedy, strict=True)),
            _perplexity(before),
            _perplexity(after),
        )


def _greedy(logits: Logits, row: Row, first: NDArray[np.float32]) -> tuple[int, ...]:
    said = [int(first[-1].argmax())]
    while len(said) < NEW_TOKENS:
        said.append(int(logits([(*row, *said)])[0][-1].argmax()))
    return tuple(said)


def _perplexity(said: Said) -> float:
    losses = []
    for row, logits in zip(said.rows, said.logits, strict=True):
        scores = logits[:-1].astype(np.float64)
        most = scores.max(axis=1, keepdims=True)
        whole = np.log(np.exp(scores - most).sum(axis=1)) + most[:, 0]
        losses += list(whole - scores[np.arange(len(row) - 1), list(row[1:])])
    return float(np.exp(np.mean(losses)))
