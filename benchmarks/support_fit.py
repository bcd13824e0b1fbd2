"""`python -m benchmarks.support_fit`: fits the weights by which the extractive engine judges."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case, Pool, RememberingEmbedder, ask, ask_off_topic, halves, read_rows
from infra.contracts import Embedder
from infra.plugins import require
from retrieval.embedders import open_embedder
from retrieval.embedders._onnx_export import SCHEMES
from service.engines import Prompt
from service.engines._support import (
    FEATURES,
    QUESTION_FEATURES,
    WEIGHTS,
    Column,
    Head,
    SupportModel,
    Variant,
    measure,
)
from service.engines.extractive import candidates

OFF_TOPIC_EVERY = 3
INVERSE_REGULARISATION = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """The candidates of one question."""

    columns: Mapping[str, Column]
    carries: NDArray[np.bool_]
    """Per candidate: whether it carries a right answer."""
    answerable: bool
    weight: float = 1.0


def measure_case(case: Case, embedder: Embedder, *, weight: float = 1.0) -> Measured | None:
    """Compute what the engine would, or nothing where no sentence was found."""
    evidence, chosen = candidates(Prompt(case.question, case.passages))
    if not chosen:
        return None
    sentences = [evidence.sentences[position] for position in chosen]
    vectors = embedder.embed([sentence.read_as for sentence in sentences], kind="document")
    cosines = vectors @ embedder.embed([case.question], kind="query")[0]
    carries = [case.holds_answer(case.passages[found.passage], found.text) for found in sentences]
    columns = measure(evidence, chosen, cosines)
    return Measured(columns, np.array(carries), bool(case.answers), weight)


def fit(measured: Sequence[Measured], variant: Variant) -> SupportModel:
    """Fit both heads and choose the threshold, on the same questions."""
    names = FEATURES[variant]
    support = _fit_head(
        {name: np.concatenate([found.columns[name] for found in measured]) for name in names},
        np.concatenate([found.carries for found in measured]),
    )
    support = _calibrated(support, measured)
    at_best = [_at_best(found, support) for found in measured]
    asked = (*QUESTION_FEATURES[variant], "support")
    columns = {name: np.array([row[name] for row in at_best]) for name in asked}
    answerable = np.array([found.answerable for found in measured])
    weights = np.array([found.weight for found in measured])
    head = _fit_head(columns, answerable, weights)
    threshold = best_threshold(head.logits(columns), answerable, weights)
    return SupportModel(variant, support, head, float(1 / (1 + np.exp(-threshold))))


def best_threshold(
    logits: Column, answerable: NDArray[np.bool_], weights: NDArray[np.float64]
) -> float:
    """The logit that maximises the mean of two shares: answerable kept, unanswerable refused."""
    order = np.argsort(logits)
    kept = np.where(answerable, weights, 0)[order]
    refused = np.where(answerable, 0, weights)[order]
    lost = np.concatenate([[0.0], np.cumsum(kept)]) / kept.sum()
    caught = np.concatenate([[0.0], np.cumsum(refused)]) / refused.sum()
    cut = int((caught - lost).argmax())
    return float(logits[order[min(cut, len(order) - 1)]])


def as_json(model: SupportModel) -> dict[str, Any]:
    return {
        "support": _head_as_json(model.support),
        "answerable": _head_as_json(model.answerable),
        "threshold": round(model.threshold, 4),
    }


def _head_as_json(head: Head) -> dict[str, Any]:
    weights = {name: round(weight, 5) for name, weight in head.weights.items()}
    return {"intercept": round(head.intercept, 5), "weights": weights}


def _fit_head(
    columns: Mapping[str, Column],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> Head:
    """Fit on standardised columns and fold the scale into the weights."""
    names = list(columns)
    rows = np.stack([columns[name] for name in names], axis=1)
    mean, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    library = require("sklearn.linear_model", extra="torch")
    regression = library.LogisticRegression(C=INVERSE_REGULARISATION, max_iter=500)
    regression.fit((rows - mean) / scale, labels, sample_weight=weights)
    slopes = regression.coef_[0] / scale
    intercept = float(regression.intercept_[0] - slopes @ mean)
    return Head(intercept, dict(zip(names, map(float, slopes), strict=True)))


def _calibrated(head: Head, measured: Sequence[Measured]) -> Head:
    """Stretch and shift the logits to be right about each question's best sentence (Platt 1999).

    Fitted on all candidates, of which nearly all are wrong, they are too low for the best.
    """
    logits = [head.logits(found.columns) for found in measured]
    best = np.array([own.max() for own in logits])
    right = [found.carries[own.argmax()] for found, own in zip(measured, logits, strict=True)]
    platt = _fit_head({"logit": best}, np.array(right))
    slope = platt.weights["logit"]
    weights = {name: weight * slope for name, weight in head.weights.items()}
    return Head(head.intercept * slope + platt.intercept, weights)


def _at_best(found: Measured, support: Head) -> dict[str, float]:
    logits = support.logits(found.columns)
    best = int(logits.argmax())
    row = {name: float(column[best]) for name, column in found.columns.items()}
    return {**row, "support": float(logits[best])}


def training_questions(pool: Pool, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Case, float]]:
    """The fit half: as many unanswerable ones by weight as answerable, half of them off topic."""
    articles, _ = halves(pool)
    own = [row for row in rows if pool_title(pool, row) in articles]
    on_topic = ask(pool, own, articles=articles)
    off_topic = ask_off_topic(pool, own[::OFF_TOPIC_EVERY], articles=articles)
    answerable = sum(bool(case.answers) for case in on_topic)
    unanswerable = len(on_topic) - answerable
    return [
        *((case, 1.0 if case.answers else answerable / 2 / unanswerable) for case in on_topic),
        *((case, answerable / 2 / len(off_topic)) for case in off_topic),
    ]


def pool_title(pool: Pool, row: Mapping[str, Any]) -> str:
    """The article a question was written about."""
    return next(str(found["title"]) for found in pool.paragraphs if found["id"] == row["doc_id"])


def identities(name: str) -> list[str]:
    """Those of the embedder's precisions: their cosines are near enough for the same weights."""
    if name == "onnx":
        return [open_embedder(name, precision=precision).identity for precision in SCHEMES]
    return [open_embedder(name).identity]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.support_fit", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of real datasets")
    parser.add_argument("--output", type=Path, default=Path("service/engines") / WEIGHTS)
    parser.add_argument("--embedder", default="onnx")
    options = parser.parse_args(arguments)
    embedder = RememberingEmbedder(open_embedder(options.embedder))
    squad = options.data / "qa" / "squad_v2"
    rows = read_rows(squad / "questions.jsonl.gz")
    with tempfile.TemporaryDirectory(prefix="ragstone-fit-") as folder:
        pool = Pool(read_rows(squad / "corpus.jsonl.gz"), Path(folder), embedder)
        asked = training_questions(pool, rows)
        pool.close()
    found = [measure_case(case, embedder, weight=weight) for case, weight in asked]
    measured = [one for one in found if one is not None]
    variants = {variant: as_json(fit(measured, variant)) for variant in FEATURES}
    stored = {"embedders": identities(options.embedder), "variants": variants}
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    print(f"{len(measured)} questions; weights written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
