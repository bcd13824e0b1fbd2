"""`python -m benchmarks.injection_fit`: fits the weights of the injection screen."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.injection_data import Texts, documents, questions_to_fit, sentences_to_fit
from service.guards import Kind
from service.guards import _signs as features
from service.guards.heuristic import WEIGHTS, Head, Heuristic

Numbers = NDArray[np.float64]

FALSE_ALARMS: dict[Kind, float] = {"question": 0.005, "passage": 0.005}
"""Of the harmless texts that were fitted on; the scores are shifted so that 0.5 stands there."""
RIDGE_SIGNS = 0.3
RIDGE_PIECES = 4.0
STEPS = 25
POSITIVE_WEIGHT = 3.0


LENGTHS = ("length", "sentences")
"""Measures that tell the attacks at hand from harmless questions, which are shorter, and would take
every long question for one; sentences of documents are as long as attacks in them."""


def fit(texts: Texts, *, without: Sequence[str] = ()) -> Head:
    """Fit one logistic regression, with a ridge; signs in `without` weigh nothing."""
    said = [features.normalise(text) for text in (*texts.bad, *texts.good)]
    signs = np.array([features.signs(text) for text in said])
    signs[:, [name in without for name in features.NAMES]] = 0.0
    pieces = np.array([features.pieces(text) for text in said])
    labels = np.concatenate([np.ones(len(texts.bad)), np.zeros(len(texts.good))])
    weights = np.where(labels == 1, POSITIVE_WEIGHT, 1.0)
    columns = np.hstack([np.ones((len(said), 1)), signs, pieces])
    ridge = np.concatenate(
        [[1e-6], np.full(signs.shape[1], RIDGE_SIGNS), np.full(pieces.shape[1], RIDGE_PIECES)]
    )
    found = _logistic(columns, labels, weights, ridge)
    return Head(float(found[0]), found[1 : 1 + signs.shape[1]], found[1 + signs.shape[1] :])


def calibrate(head: Head, harmless: Sequence[str], *, kind: Kind) -> Head:
    """Shift the intercept so that the allowed share of harmless texts scores 0.5 or more."""
    screen = Heuristic({kind: head})
    scores = np.array(screen.score(harmless, kind=kind))
    logits = np.log(scores / (1 - scores))
    limit = float(np.quantile(logits, 1 - FALSE_ALARMS[kind]))
    return Head(head.intercept - max(limit, -4.0), head.signs, head.pieces)


def packed(head: Head) -> dict[str, Any]:
    """Return a head as JSON holds it; the weights of the pieces are rounded to a byte each."""
    scale = float(np.abs(head.pieces).max()) / 127 or 1.0
    rounded = np.round(head.pieces / scale).astype(np.int8)
    return {
        "intercept": round(head.intercept, 4),
        "signs": {
            name: round(float(weight), 4)
            for name, weight in zip(features.NAMES, head.signs, strict=True)
        },
        "piece_scale": scale,
        "pieces": base64.b85encode(rounded.tobytes()).decode(),
    }


def heads(data: Path, *, with_deepset: bool = True) -> dict[Kind, Head]:
    """Fit both heads."""
    asked = questions_to_fit(data, with_deepset=with_deepset)
    question = calibrate(fit(asked, without=LENGTHS), asked.good, kind="question")
    passage = calibrate(fit(sentences_to_fit(data)), list(documents(data, part=0)), kind="passage")
    return {"question": question, "passage": passage}


def _logistic(columns: Numbers, labels: Numbers, weights: Numbers, ridge: Numbers) -> Numbers:
    """Minimise the weighted loss plus ridge by L-BFGS; a step is a two-loop recursion."""
    found = np.zeros(columns.shape[1])
    gradient = _gradient(found, columns, labels, weights, ridge)
    memory: list[tuple[Numbers, Numbers]] = []
    for _ in range(STEPS * 12):
        step = -_two_loops(gradient, memory)
        size, loss = 1.0, _loss(found, columns, labels, weights, ridge)
        while _loss(found + size * step, columns, labels, weights, ridge) > loss + 1e-4 * size * (
            gradient @ step
        ):
            size /= 2
            if size < 1e-8:
                return found
        moved = size * step
        new = _gradient(found + moved, columns, labels, weights, ridge)
        memory = [*memory[-9:], (moved, new - gradient)]
        found, gradient = found + moved, new
        if float(np.abs(gradient).max()) < 1e-3:
            break
    return found


def _loss(
    found: Numbers, columns: Numbers, labels: Numbers, weights: Numbers, ridge: Numbers
) -> float:
    logits = columns @ found
    return float(weights @ (np.logaddexp(0, logits) - labels * logits) + ridge @ found**2 / 2)


def _gradient(
    found: Numbers, columns: Numbers, labels: Numbers, weights: Numbers, ridge: Numbers
) -> Numbers:
    chance = 1 / (1 + np.exp(-np.clip(columns @ found, -40, 40)))
    return np.asarray(columns.T @ (weights * (chance - labels)) + ridge * found)


def _two_loops(gradient: Numbers, memory: Sequence[tuple[Numbers, Numbers]]) -> Numbers:
    direction, told = gradient.copy(), []
    for moved, changed in reversed(memory):
        share = float(moved @ direction) / float(moved @ changed)
        direction -= share * changed
        told.append(share)
    if memory:
        moved, changed = memory[-1]
        direction *= float(moved @ changed) / float(changed @ changed)
    for (moved, changed), share in zip(memory, reversed(told), strict=True):
        direction += moved * (share - float(changed @ direction) / float(moved @ changed))
    return direction


def main(arguments: Sequence[str]) -> int:
    """Fit and write the weights into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of real datasets")
    parser.add_argument(
        "--to", type=Path, default=Path(__file__).parent.parent / "service" / "guards" / WEIGHTS
    )
    options = parser.parse_args(arguments)
    stored = {kind: packed(head) for kind, head in heads(options.data).items()}
    options.to.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
