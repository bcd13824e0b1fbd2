"""How likely a sentence carries the answer: cheap features and a fitted logistic regression."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service import words
from service.engines._evidence import Evidence, Sentence

Column: TypeAlias = NDArray[np.float64]
"""One value per candidate sentence."""
Variant: TypeAlias = Literal["dense", "relative", "lexical"]
"""`dense` was fitted on one model's cosines; `relative` reads only how cosines compare among the
candidates, for every other model; `lexical` reads none, for embedders that know no meaning."""

WEIGHTS = "_support_weights.json"

LEXICAL = (
    "coverage", "coverage_near", "coverage_passage", "coverage_margin", "coverage_gap",
    "names_passage", "names_near", "numbers_passage", "numbers_sentence", "pairs", "kind_held",
    "kind_missing", "defines", "negation_lost", "length", "asked",
)  # fmt: skip
RELATIVE = ("cosine_margin", "cosine_gap")
ABSOLUTE = ("cosine", "cosine_best", "passage_cosine")
FEATURES: Mapping[Variant, tuple[str, ...]] = {
    "dense": (*LEXICAL, *RELATIVE, *ABSOLUTE),
    "relative": (*LEXICAL, *RELATIVE),
    "lexical": LEXICAL,
}
"""What the support of a sentence is read from.

Not the rank of its passage: where the weights were fitted the first passage is nearly always right,
and a model that reads the rank trusts it where it is not."""

_WHOLE_QUESTION = (
    "coverage", "coverage_near", "names_near", "numbers_sentence", "kind_missing", "negation_lost",
    "asked",
)  # fmt: skip
QUESTION_FEATURES: Mapping[Variant, tuple[str, ...]] = {
    "dense": (*_WHOLE_QUESTION, *ABSOLUTE),
    "relative": (*_WHOLE_QUESTION, *RELATIVE),
    "lexical": _WHOLE_QUESTION,
}
"""What tells, at the best sentence and beside its support, whether there is an answer at all.

Few, and each of a sign that makes sense: with more, other kinds of question suffered."""


@dataclass(frozen=True, slots=True)
class Head:
    """One logistic regression over named features."""

    intercept: float
    weights: Mapping[str, float]

    def logits(self, columns: Mapping[str, Column]) -> Column:
        size = len(next(iter(columns.values())))
        return self.intercept + sum(
            (weight * columns[name] for name, weight in self.weights.items()), start=np.zeros(size)
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model says of the candidates, in their order."""

    support: Column
    """The probability that the sentence carries the answer."""
    answerable: float
    """The probability that the passages answer the question at all."""


@dataclass(frozen=True, slots=True)
class SupportModel:
    """Two heads: one judges every sentence, one the question by its best sentence."""

    variant: Variant
    support: Head
    answerable: Head
    threshold: float
    """Below this probability of being answerable, the better answer is that there is none."""

    @property
    def uses_cosines(self) -> bool:
        return self.variant != "lexical"

    def judge(self, columns: Mapping[str, Column]) -> Judgement:
        """Judge at least one candidate; see `measure` for the columns."""
        logits = self.support.logits(columns)
        best = [int(logits.argmax())]
        at_best = {name: column[best] for name, column in columns.items()} | {
            "support": logits[best]
        }
        return Judgement(sigmoid(logits), float(sigmoid(self.answerable.logits(at_best))[0]))


def load_model(embedder_identity: str) -> SupportModel:
    """Read the weights that fit the embedder; `python -m benchmarks.support_fit` makes them."""
    stored = json.loads(files(__package__).joinpath(WEIGHTS).read_text(encoding="utf-8"))
    if embedder_identity in stored["embedders"]:
        return _model("dense", stored)
    return _model("lexical" if embedder_identity.startswith("hashing") else "relative", stored)


def _model(variant: Variant, stored: Mapping[str, Any]) -> SupportModel:
    weights = stored["variants"][variant]
    return SupportModel(
        variant,
        support=Head(**weights["support"]),
        answerable=Head(**weights["answerable"]),
        threshold=weights["threshold"],
    )


def sigmoid(logits: Column) -> Column:
    return 1 / (1 + np.exp(-np.clip(logits, -40, 40)))


def measure(
    evidence: Evidence, chosen: Sequence[int], cosines: NDArray[np.float32] | None
) -> dict[str, Column]:
    """The features of the chosen sentences, by name.

    Args:
        evidence: all the sentences, of which the chosen are candidates.
        chosen: positions in `evidence.sentences`; at least one.
        cosines: of the question with each chosen sentence; None leaves their features out.
    """
    candidates = [evidence.sentences[position] for position in chosen]
    rows = [_lexical(evidence, candidate) for candidate in candidates]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    columns["coverage_margin"], columns["coverage_gap"] = _margins(columns["coverage"])
    if cosines is not None:
        columns |= _dense(evidence, candidates, np.asarray(cosines, dtype=np.float64))
    return columns


def _lexical(evidence: Evidence, sentence: Sentence) -> dict[str, float]:
    question = evidence.question
    around = evidence.around[sentence.passage]
    is_specific = question.kind != "other"
    holds = words.holds_kind(question, sentence.text)
    sentence_pairs = (
        words.pairs(words.content_terms(sentence.text)) if question.pairs else frozenset()
    )
    return {
        "coverage": evidence.coverage(sentence.terms),
        "coverage_near": evidence.coverage(sentence.near),
        "coverage_passage": evidence.coverage(around),
        "names_passage": evidence.coverage(around, question.names),
        "names_near": evidence.coverage(sentence.near, question.names),
        "numbers_passage": evidence.coverage(around, question.numbers),
        "numbers_sentence": evidence.coverage(sentence.terms, question.numbers),
        "pairs": len(question.pairs & sentence_pairs) / max(1, len(question.pairs)),
        "kind_held": float(is_specific and holds),
        "kind_missing": float(is_specific and not holds),
        "defines": float(words.defines(question, sentence.text)),
        "negation_lost": float(question.negated and not words.is_negated(sentence.text)),
        "length": math.log1p(len(sentence.terms)),
        "asked": math.log1p(len(question.terms)),
    }


def _dense(
    evidence: Evidence, candidates: Sequence[Sentence], cosines: Column
) -> dict[str, Column]:
    homes = np.array([candidate.passage for candidate in candidates])
    margin, gap = _margins(cosines)
    return {
        "cosine": cosines,
        "cosine_margin": margin,
        "cosine_gap": gap,
        "cosine_best": np.full_like(cosines, cosines.max()),
        "passage_cosine": _passage_cosines(evidence, homes, cosines)[homes],
    }


def _passage_cosines(evidence: Evidence, homes: NDArray[np.intp], cosines: Column) -> Column:
    """What dense search scored each passage; where it did not, the cosine of its best sentence."""
    scores = np.full(len(evidence.passages), min(0.0, float(cosines.min())))
    np.maximum.at(scores, homes, cosines)
    for position, passage in enumerate(evidence.passages):
        scores[position] = passage.scores.get("dense", scores[position])
    return scores


def _margins(values: Column) -> tuple[Column, Column]:
    """How far each value leads the next best, and how far it trails the best; one of them is 0."""
    if len(values) < 2:
        return values.copy(), np.zeros_like(values)
    best = int(values.argmax())
    margin = np.zeros_like(values)
    margin[best] = values[best] - np.delete(values, best).max()
    return margin, values[best] - values
