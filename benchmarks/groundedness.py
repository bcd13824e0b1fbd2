"""Groundedness: what passages do not carry, on data that nothing was fitted on; and how fast."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import RememberingEmbedder
from benchmarks.extractive import auroc
from benchmarks.grounding_data import DATASETS, SEED, Response, drawn, rows
from benchmarks.grounding_training import (
    Example,
    best,
    best_cut,
    count_rarity,
    examples,
    fit,
    perturbed,
    training_examples,
)
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from evals.support import overlap, supported
from infra.contracts import Answer, Passage, Usage
from infra.sentences import sentence_spans
from monitoring.groundedness import Scorer
from monitoring.grounding.detectors import open_detector
from monitoring.grounding.model import GroundingModel
from retrieval.embedders import open_embedder

MOST, QUICK = 1_000, 60
"""Responses of a dataset that is tested on; they are drawn by group."""
FITTED, QUICK_FITTED = 4_000, 100
"""Responses of each of the others."""
RESAMPLES = 1_000
ANSWERS, QUICK_ANSWERS = 300, 20
PASSAGES = 8
SENTENCES = 4
MOST_MILLISECONDS = 20.0
BINS = 10
Column: TypeAlias = NDArray[np.float64]


def run(options: Options) -> list[Row]:
    """Leave each dataset out of the fit and test on it; then time the scorer that is shipped."""
    if options.data is None:
        return [Row("AUROC", None, note="needs the shared datasets")]
    embedder = RememberingEmbedder(open_embedder(options.embedder))
    rarity = count_rarity(options.data)
    found: list[Row] = []
    for name, read in DATASETS.items():
        tested = drawn(list(read(options.data)), QUICK if options.quick else MOST)
        options.say(f"{name}: {len(tested)} responses")
        others = [each for each in DATASETS if each != name]
        most = QUICK_FITTED if options.quick else FITTED
        model = fit(training_examples(options.data, rarity, others, most=most), rarity)
        found += told(name, tested, model, partial(embedder.embed, kind="document"))
        found += flagged(name, perturbed(tested), model)
    return [*found, *timed(options.data, QUICK_ANSWERS if options.quick else ANSWERS)]


def told(name: str, tested: Sequence[Response], model: GroundingModel, embed: Any) -> list[Row]:
    """Return how well a model that was fitted elsewhere tells what is wrong, beside baselines."""
    seen = examples(tested, model.rarity, dataset=name)
    wrong = np.array([each.is_wrong for each in seen])
    groups = [each.group for each in seen]
    risks = np.array([model.risk(best(model, each)) for each in seen])
    logits = np.array([best(model, each) for each in seen])
    read = [each for each in tested if each.text.strip()]
    of_read = np.array([each.is_wrong for each in read])
    baselines: Mapping[str, Callable[[Response], float]] = {
        "word overlap": lambda each: -overlap(each.text, [each.context]),
        "faithfulness": lambda each: -weakest(each),
        "similarity": lambda each: -nearest(each, embed),
    }
    note = f"n={len(seen)}, {wrong.mean():.0%} wrong"
    found = []
    area = measured(logits, wrong, groups, auroc)
    cut = float(model.card["best_f1_from"])
    score = measured((risks >= cut).astype(np.float64), wrong, groups, f1)
    for baseline, judge in baselines.items():
        theirs = np.array([judge(each) for each in read])
        grouped = [each.group for each in read]
        peer = measured(theirs, of_read, grouped, auroc)
        found.append(Row(f"{name}: AUROC", area, peer, baseline, note=note))
        peer = measured(theirs, of_read, grouped, best_f1)
        found.append(Row(f"{name}: F1", score, peer, f"{baseline}, best cut on the test"))
    every = f1(np.ones(len(wrong)), wrong)
    error = Spread((calibration_error(risks, wrong),))
    return [
        *found,
        Row(f"{name}: calibration error", error, note=f"F1 of flagging all {every:.2f}"),
    ]


def flagged(name: str, made: Sequence[Response], model: GroundingModel) -> list[Row]:
    """Return the shares that are flagged of what was made wrong, and of what is said otherwise."""
    by_kind: dict[str, list[Example]] = defaultdict(list)
    for each in examples(made, model.rarity, dataset=name):
        by_kind[each.kind].append(each)
    found = []
    for kind, seen in sorted(by_kind.items()):
        risks = np.array([model.risk(best(model, each)) for each in seen])
        share = Spread((float((risks >= model.unsupported_from).mean()),))
        found.append(Row(f"{name}, {kind}: flagged", share, note=f"n={len(seen)}"))
    return found


def timed(data: Path, answers: int) -> list[Row]:
    """Time the shipped scorer on answers of some sentences beside eight paragraphs of SQuAD."""
    rng = random.Random(SEED)
    texts = [str(row["text"]) for row in rows(data / "qa" / "squad_v2" / "corpus.jsonl.gz")]
    scorer = Scorer(open_detector("trees"))
    took, used = [], []
    for number in range(answers):
        answer = answer_of(rng.sample(texts, PASSAGES), rng)
        started, worked = time.perf_counter(), time.thread_time()
        scorer.score(answer)
        if number:  # the first opens the model
            took.append((time.perf_counter() - started) * 1e3)
            used.append((time.thread_time() - worked) * 1e3)
    bar = Bar(MOST_MILLISECONDS, at_least=False)
    note = f"{SENTENCES} sentences, {PASSAGES} paragraphs"
    return [
        Row("answer scored, p50", Spread((float(np.median(took)),)), unit="ms", bar=bar, note=note),
        Row("answer scored, processor time, p50", Spread((float(np.median(used)),)), unit="ms"),
        Row("answer scored, p95", Spread((float(np.quantile(took, 0.95)),)), unit="ms"),
    ]


def answer_of(texts: Sequence[str], rng: random.Random) -> Answer:
    """Return an answer of sentences of some texts, half of them with words exchanged."""
    said = []
    for number in range(SENTENCES):
        text = texts[number % len(texts)]
        start, end = rng.choice(sentence_spans(text))
        words = text[start:end].split()
        if number % 2:
            words[rng.randrange(len(words))] = rng.choice(texts[-1].split())
        said.append(" ".join(words))
    passages = tuple(
        Passage(n, f"file-{n}", 1, "c", "", "", 0, len(text), text, 0.5)
        for n, text in enumerate(texts)
    )
    return Answer("a", "?", "c", " ".join(said), True, None, (), passages, "e", Usage())


def weakest(response: Response) -> float:
    """Return the support that the metric `faithfulness` finds for the weakest sentence."""
    claims = [response.text[start:end] for start, end in sentence_spans(response.text)]
    found = supported(claims, [response.context], None)
    return min((each.support for each in found), default=0.0)


def nearest(response: Response, embed: Any) -> float:
    """Return the cosine of the response and the sentence of its context that is nearest to it."""
    spans = sentence_spans(response.context)
    vectors = embed([response.text, *(response.context[start:end] for start, end in spans)])
    return float((vectors[1:] @ vectors[0]).max(initial=-1.0))


def measured(
    scores: Column,
    wrong: NDArray[np.bool_],
    groups: Sequence[str],
    measure: Callable[[Column, NDArray[np.bool_]], float],
) -> Spread:
    """Return a figure and the ends of its 95 % interval, groups being drawn again."""
    members: dict[str, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    each = [np.array(places) for places in members.values()]
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([each[n] for n in rng.integers(len(each), size=len(each))])
        if 0 < wrong[chosen].sum() < chosen.size:
            found.append(measure(scores[chosen], wrong[chosen]))
    low, high = np.quantile(found, [0.025, 0.975])
    return Spread((float(low), measure(scores, wrong), float(high)))


def f1(is_flagged: Column, wrong: NDArray[np.bool_]) -> float:
    hits = float(is_flagged[wrong].sum())
    return 2 * hits / (float(is_flagged.sum()) + float(wrong.sum()) or 1.0)


def best_f1(scores: Column, wrong: NDArray[np.bool_]) -> float:
    """Return the F1 at the cut that gives the most."""
    return best_cut(scores, wrong)[1]


def calibration_error(risks: Column, wrong: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over ten bins of as many (Naeini et al. 2015)."""
    order = np.argsort(risks, kind="stable")
    parts = np.array_split(order, BINS)
    gaps = [abs(risks[part].mean() - wrong[part].mean()) * len(part) for part in parts if len(part)]
    return float(sum(gaps) / len(risks))
