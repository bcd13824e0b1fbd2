"""From claims beside texts to a model of groundedness: features, trees, calibration, thresholds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.grounding_data import SEED, Response, rows, statements
from benchmarks.perturbations import Perturber
from infra.plugins import require
from infra.sentences import sentence_spans
from monitoring.grounding import trees
from monitoring.grounding.evidence import Evidence, Source
from monitoring.grounding.features import NAMES, SIGNS, Claim, Columns, measure
from monitoring.grounding.model import GroundingModel
from monitoring.grounding.terms import Rarity, content_terms

CHUNK_CHARACTERS = 900
"""About the 200 tokens of a chunk as it is found."""
FREQUENT_TERMS = 2_500
PERTURBED = 600
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
    "learning_rate": 0.07,
    "max_iter": 140,
    "max_leaf_nodes": 10,
    "min_samples_leaf": 40,
    "l2_regularization": 2.0,
    "early_stopping": False,
    "random_state": SEED,
}


@dataclass(frozen=True, slots=True)
class Example:
    """A claim with the features of its best pieces."""

    columns: Columns
    is_wrong: bool
    group: str
    dataset: str
    kind: str


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

    A claim is as well carried as by its best piece, and which that is, the model of the round
    before says. Each dataset weighs the same.
    """
    groups = sorted({(each.dataset, each.group) for each in found})
    random.Random(SEED).shuffle(groups)
    held = set(groups[: int(len(groups) * CALIBRATION_SHARE)])
    training = [each for each in found if (each.dataset, each.group) not in held]
    calibrating = [each for each in found if (each.dataset, each.group) in held]
    ensemble = fit_trees(training)
    logits = np.array([best(ensemble, each) for each in calibrating])
    wrong = np.array([each.is_wrong for each in calibrating], dtype=np.float64)
    weights = dataset_weights(calibrating)
    knots, risks = calibrate(logits, wrong, weights)
    model = GroundingModel(name, ensemble, knots, risks, 0.0, 1.0, rarity, card={})
    told = np.array([model.risk(each) for each in logits])
    upper = threshold(told, wrong == 0, weights, share=1 - FALSE_ALARMS)
    lower = threshold(told, wrong == 1, weights, share=MISSED)
    lower, upper = min(lower, upper), max(lower, upper)
    return replace(model, grounded_below=lower, unsupported_from=upper)


def fit_trees(training: Sequence[Example]) -> trees.Trees:
    library = require("sklearn.ensemble", extra="evals")
    wrong = np.array([each.is_wrong for each in training])
    weights = dataset_weights(training)
    chosen = np.array([each.columns[0] for each in training])
    for _ in range(ROUNDS):
        learner = library.HistGradientBoostingClassifier(
            monotonic_cst=[SIGNS[name] for name in NAMES], **PARAMETERS
        )
        learner.fit(chosen, wrong, sample_weight=weights)
        ensemble = as_trees(learner)
        chosen = np.array(
            [each.columns[int(ensemble.logits(each.columns).argmin())] for each in training]
        )
    return ensemble


def as_trees(learner: Any) -> trees.Trees:
    """Return the trees of a fitted classifier of scikit-learn of two classes."""
    nodes = [predictor.nodes for (predictor,) in learner._predictors]
    baseline = float(learner._baseline_prediction.ravel()[0])
    return trees.joined(nodes, features=NAMES, baseline=baseline)


def best(ensemble: trees.Trees, example: Example) -> float:
    return float(ensemble.logits(example.columns).min())


def dataset_weights(found: Sequence[Example]) -> NDArray[np.float64]:
    """Each dataset weighs the same, with a mean of 1."""
    counts = Counter(each.dataset for each in found)
    weights = np.array([1.0 / counts[each.dataset] for each in found])
    return weights * len(found) / weights.sum()


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


Embed = Callable[[Sequence[str]], NDArray[np.float32]]
