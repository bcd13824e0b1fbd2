"""Scores instructions by signs and words, with fitted weights; no model, no download."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.sentences import sentence_spans
from service.guards import Kind
from service.guards import _signs as features

WEIGHTS = "_injection_weights.json"
WHOLE_SENTENCES = 4
"""A question of more is looked at by its sentences alone: signs add up in whatever is long."""
MAX_STRETCHES = 64
"""Of one text; a longer one is looked at sentence by sentence from both ends."""
MAX_CHARACTERS = 60_000


@dataclass(frozen=True, slots=True)
class Head:
    """One logistic regression: over the named signs and the hashed pieces."""

    intercept: float
    signs: NDArray[np.float64]
    pieces: NDArray[np.float64]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        normal = [features.normalise(text) for text in texts]
        return np.array(
            [
                self.intercept
                + float(features.signs(text) @ self.signs)
                + float(features.pieces(text) @ self.pieces)
                for text in normal
            ]
        )


class Heuristic:
    """One head for questions, one for the sentences of retrieved text; the worst one counts."""

    name = "heuristic"

    def __init__(self, heads: dict[Kind, Head]) -> None:
        self._heads = heads

    def score(self, texts: Sequence[str], *, kind: Kind) -> list[float]:
        """Return the probability that a text instructs, by its most suspicious stretch."""
        head = self._heads[kind]
        scores = []
        for text in texts:
            logits = head.logits(stretches(text, kind))
            worst = float(logits.max()) if len(logits) else -40.0
            scores.append(float(1 / (1 + np.exp(-np.clip(worst, -40, 40)))))
        return scores


def stretches(text: str, kind: Kind) -> list[str]:
    """Return what is scored by itself: the sentences, and the whole of a question of few."""
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS // 2] + text[-MAX_CHARACTERS // 2 :]
    found = [text[start:end] for start, end in sentence_spans(text)]
    if len(found) > MAX_STRETCHES:
        found = [*found[: MAX_STRETCHES // 2], *found[-MAX_STRETCHES // 2 :]]
    if kind == "question" and len(found) != 1 and len(found) <= WHOLE_SENTENCES:
        found.append(text)
    return [one for one in found if one.strip()]


def build() -> Heuristic:
    """Read the weights; `python -m benchmarks.injection_fit` makes them."""
    stored = json.loads(files(__package__).joinpath(WEIGHTS).read_text(encoding="utf-8"))
    return Heuristic({kind: _head(stored[kind]) for kind in ("question", "passage")})


def _head(stored: dict[str, Any]) -> Head:
    packed = np.frombuffer(base64.b85decode(stored["pieces"]), dtype=np.int8)
    return Head(
        stored["intercept"],
        np.array([stored["signs"][name] for name in features.NAMES]),
        packed.astype(np.float64) * stored["piece_scale"],
    )
