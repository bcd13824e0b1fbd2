"""From claims beside texts to a model of groundedness: features, trees, calibration, thresholds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.grounding_data import DATASETS, SEED, Response, drawn, rows, statements
from benchmarks.perturbations import Perturber
from infra.plugins import require
from infra.sentences import sentence_spans
from monitoring.grounding import trees
from monitoring.grounding.evidence import Evidence, Source
from monitoring.grounding.features import NAMES, SIGNS, Claim, Columns, measure
from monitoring.grounding.model import GroundingModel, Line
from monitoring.grounding.terms import Rarity, content_terms

CHUNK_CHARACTERS = 900
"""About the 200 tokens of a chunk as it is found."""
FREQUENT_TERMS = 2_500
PERTURBED = 400
"""Claims of each dataset that are made wrong."""
MOST = 4_000
"""Claims of one dataset; they are drawn by group."""
ROUNDS = 2
CALIBRATION_SHARE = 0.25
"""Of the groups."""
FALSE_ALARMS = 0.05
"""Of claims that are carried, at the upper threshold, on the calibration groups."""
MISSED = 0.10
"""Of claims that are not, at the lower one."""
PARAMETERS: Mapping[str, Any] = {
    "learning_rate": 0.1,
    "max_iter": 80,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 60,
    "l2_regularization": 5.0,
    "early_stopping": False,
    "random_state": SEED,
}
LOOSE = frozenset({"Climate-FEVER"})
"""Claims that were not said of the texts beside them: fitted on, but no measure of a risk."""
RIDGE = 1e-3
"""Of the line, beside a mean log loss."""


@dataclass(frozen=True, slots=True)
class Example:
    """A claim with the features of its best pieces."""

    columns: Columns
    is_wrong: bool
    group: str
    dataset: str
    kind: str

    @property
    def source(self) -> str:
        """The dataset whose groups it belongs to: what was perturbed stays with what it was."""
        return self.dataset.partition(",")[0]


def count_rarity(data: Path) -> Rarity:
    """Count the terms of paragraphs that no test reads: SQuAD's and PubMedQA's."""
    texts = [
        str(row["text"])
        for name in ("squad_v2", "pubmedqa")
        for row in rows(data / "qa" / name / "corpus.jsonl.gz")
    ]
    counts = Counter(term for text in texts for term in set(content_terms(text)))
    longest = math.log(len(texts) + 1)
    frequent = [each for each in counts.most_common(FREQUENT_TERMS) if not each[0].isdigit()]
    weights = {
        term: math.log((len(texts) + 1) / (count + 0.5)) / longest for term, count in frequent
    }
    return Rarity({term: round(weight, 2) for term, weight in sorted(weights.items())})


def examples(responses: Iterable[Response], rarity: Rarity, *, dataset: str) -> list[Example]:
    """Measure responses of one sentence each; a longer one is read as a whole."""
    read: dict[str, Evidence] = {}
    found = []
    for each in responses:
        if each.context not in read:
            read[each.context] = Evidence(sources(each))
        claim = Claim.of(each.text, rarity)
        if not claim.terms:
            continue
        _, columns = measure(claim, read[each.context])
        if len(columns):
            found.append(Example(columns, each.is_wrong, each.group, dataset, each.kind))
    return found


def sources(response: Response) -> list[Source]:
    """Return the context in chunks as search would find them, below its title."""
    found: list[Source] = []
    first = last = 0
    for start, end in sentence_spans(response.context):
        if last > first and end - first > CHUNK_CHARACTERS:
            found.append(Source(response.context[first:last], response.title))
            first = start
        last = end
    return [*found, Source(response.context[first:], response.title)]


def training_examples(
    data: Path, rarity: Rarity, datasets: Sequence[str], *, most: int = MOST
) -> list[Example]:
    """Return the claims of datasets as they are and perturbed, and what SQuAD's paragraphs say."""
    found = examples(drawn(stated(data), 3 * most), rarity, dataset="SQuAD")
    for name in datasets:
        responses = drawn(list(DATASETS[name](data)), most)
        found += examples(responses, rarity, dataset=name)
        found += examples(perturbed(responses), rarity, dataset=f"{name}, perturbed")
    return found


def perturbed(responses: Sequence[Response]) -> list[Response]:
    """Return what holds among responses made wrong in every way, and said otherwise."""
    rng = random.Random(SEED)
    right = [each for each in responses if not each.is_wrong]
    perturber = Perturber(right, rng)
    chosen = rng.sample(right, min(PERTURBED, len(right)))
    made = [new for each in chosen for new in perturber.wrong(each)]
    return [*made, *(new for each in chosen for new in perturber.rephrased(each))]


def stated(data: Path) -> list[Response]:
    """Return what SQuAD's paragraphs say, as it is and perturbed."""
    found = list(statements(data, rng=random.Random(SEED)))
    return [*found, *perturbed([each for each in found if each.kind == "copied"])]


def fit(found: Sequence[Example], rarity: Rarity, *, name: str = "trees") -> GroundingModel:
    """Fit on three quarters of the groups; calibrate and set thresholds on the others.

    A risk is therefore right where half of what is said is not carried, and too high where less is.
    """
    training, calibrating = halves(found)
    model = uncalibrated(training, rarity, name=name)
    logits = np.array([best(model, each) for each in calibrating])
    wrong = np.array([each.is_wrong for each in calibrating], dtype=np.float64)
    weights = dataset_weights(calibrating)
    knots, risks = calibrate(logits, wrong, weights)
    model = replace(model, logits=knots, risks=risks)
    told = np.array([model.risk(each) for each in logits])
    upper = threshold(told, wrong == 0, weights, share=1 - FALSE_ALARMS)
    lower = threshold(told, wrong == 1, weights, share=MISSED)
    lower, upper = min(lower, upper), max(lower, upper)
    card = {"best_f1_from": round(best_cut(told, wrong > 0, weights)[0], 4)}
    return replace(model, grounded_below=lower, unsupported_from=upper, card=card)


def halves(found: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Split by group: what is fitted on, and what it is calibrated on."""
    groups = sorted({(each.source, each.group) for each in found})
    random.Random(SEED).shuffle(groups)
    held = set(groups[: int(len(groups) * CALIBRATION_SHARE)])
    return (
        [each for each in found if (each.source, each.group) not in held],
        [each for each in found if (each.source, each.group) in held and each.source not in LOOSE],
    )


def uncalibrated(training: Sequence[Example], rarity: Rarity, *, name: str) -> GroundingModel:
    """Fit trees and line to the best piece of each claim, which the round before names."""
    wrong = np.array([each.is_wrong for each in training])
    weights = dataset_weights(training)
    rows = np.concatenate([each.columns for each in training])
    starts = np.cumsum([0, *(len(each.columns) for each in training)])
    chosen = rows[starts[:-1]]  # that which shares most words
    for _ in range(ROUNDS):
        grown, line = fit_trees(chosen, wrong, weights), fit_line(chosen, wrong, weights)
        logits = grown.logits(rows) + line.logits(rows)
        chosen = np.array(
            [
                rows[start + int(logits[start:end].argmin())]
                for start, end in zip(starts, starts[1:], strict=False)
            ]
        )
    ends = np.array([0.0, 1.0])
    return GroundingModel(name, grown, line, ends, ends, 0.0, 1.0, rarity, card={})


def fit_trees(rows: Columns, wrong: NDArray[np.bool_], weights: NDArray[np.float64]) -> trees.Trees:
    library = require("sklearn.ensemble", extra="evals")
    learner = library.HistGradientBoostingClassifier(
        monotonic_cst=[SIGNS[name] for name in NAMES], **PARAMETERS
    )
    learner.fit(rows, wrong, sample_weight=weights)
    return as_trees(learner)


def fit_line(rows: Columns, wrong: NDArray[np.bool_], weights: NDArray[np.float64]) -> Line:
    """Fit a logistic regression with a ridge, each weight of the sign of its feature or zero."""
    library = require("scipy.optimize", extra="evals")
    signs = np.array([SIGNS[name] for name in NAMES], dtype=np.float64)
    turned = rows * signs
    share = weights / weights.sum()

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = turned @ values[:-1] + values[-1]
        errors = share * (1 / (1 + np.exp(-logits)) - wrong)
        told = share @ (np.logaddexp(0, logits) - wrong * logits)
        slope = turned.T @ errors + 2 * RIDGE * values[:-1]
        return float(told + RIDGE * values[:-1] @ values[:-1]), np.append(slope, errors.sum())

    bounds = [(0, None)] * len(NAMES) + [(None, None)]
    found = library.minimize(loss, np.zeros(len(NAMES) + 1), jac=True, bounds=bounds).x
    return Line(found[:-1] * signs, float(found[-1]))


def as_trees(learner: Any) -> trees.Trees:
    """Return the trees of a fitted classifier of scikit-learn of two classes."""
    nodes = [predictor.nodes for (predictor,) in learner._predictors]
    baseline = float(learner._baseline_prediction.ravel()[0])
    return trees.joined(nodes, features=NAMES, baseline=baseline)


def best(model: GroundingModel, example: Example) -> float:
    """Return the logit of the piece that carries a claim most."""
    return float(model.raw(example.columns).min())


def dataset_weights(found: Sequence[Example]) -> NDArray[np.float64]:
    """Each dataset weighs the same, and within it what is carried the same as what is not."""
    counts = Counter((each.dataset, each.is_wrong) for each in found)
    weights = np.array([1.0 / counts[each.dataset, each.is_wrong] for each in found])
    scaled: NDArray[np.float64] = weights * len(found) / weights.sum()
    return scaled


def calibrate(
    logits: NDArray[np.float64], wrong: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the knots of a rising line from logits to risks: isotonic regression, thinned."""
    library = require("sklearn.isotonic", extra="evals")
    isotonic = library.IsotonicRegression(y_min=0.005, y_max=0.995, out_of_bounds="clip")
    isotonic.fit(logits, wrong, sample_weight=weights)
    knots = np.unique(np.quantile(logits, np.linspace(0, 1, 41)))
    # Steps of an isotonic fit are averaged between knots, so that ranks survive.
    smooth = np.array([_mean_near(knots, at, logits, isotonic) for at in range(len(knots))])
    return knots, np.maximum.accumulate(smooth)


def _mean_near(
    knots: NDArray[np.float64], at: int, logits: NDArray[np.float64], isotonic: Any
) -> float:
    low, high = knots[max(0, at - 1)], knots[min(len(knots) - 1, at + 1)]
    return float(isotonic.predict(logits[(logits >= low) & (logits <= high)]).mean())


def threshold(
    risks: NDArray[np.float64],
    among: NDArray[np.bool_],
    weights: NDArray[np.float64],
    *,
    share: float,
) -> float:
    """Return the risk below which a share of some claims lies, by weight."""
    order = np.argsort(risks[among])
    total = np.cumsum(weights[among][order])
    return float(risks[among][order][np.searchsorted(total, share * total[-1])])


def best_cut(
    scores: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    weights: NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Return the score from which on to flag, and the F1 of that."""
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum((weights * wrong)[order])
    values = 2 * hits / (np.cumsum(weights[order]) + hits[-1])
    is_last = np.append(np.diff(scores[order]) != 0, True)  # of those with the same score
    at = int(np.where(is_last, values, -1.0).argmax())
    return float(scores[order[at]]), float(values[at])
