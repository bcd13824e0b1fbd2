"""Groundedness: answers that passages do not carry, told without a judge, beside word overlap."""

from __future__ import annotations

import gzip
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from benchmarks.cases import RememberingEmbedder
from benchmarks.extractive import auroc
from benchmarks.options import Options
from benchmarks.table import Row, Spread
from evals.metrics.faithfulness import Faithfulness
from evals.support import overlap, supported
from infra.sentences import sentence_spans
from retrieval.embedders import open_embedder

MOST, QUICK = 600, 60
"""Responses of a dataset; they are drawn by group."""
RESAMPLES = 1_000
SEED = 7


@dataclass(frozen=True, slots=True)
class Response:
    """What was said beside what it should rest on."""

    text: str
    context: str
    is_wrong: bool
    group: str
    """Responses of one group are not independent."""


def run(options: Options) -> list[Row]:
    """Rank responses by their weakest sentence and say how well that tells the wrong ones."""
    if options.data is None:
        return [Row("AUROC", None, note="needs the shared datasets")]
    embedder = RememberingEmbedder(open_embedder(options.embedder))
    embed = partial(embedder.embed, kind="document")
    methods: Mapping[str, Callable[[Response], float]] = {
        "words and meaning": lambda each: weakest(each, embed),
        "words": lambda each: weakest(each, None),
    }
    rows = []
    for name, read in DATASETS.items():
        responses = drawn(list(read(options.data)), QUICK if options.quick else MOST)
        options.say(f"{name}: {len(responses)} responses")
        plain = np.array([overlap(each.text, [each.context]) for each in responses])
        floor = measured(responses, plain)
        for method, support in methods.items():
            started = time.perf_counter()
            found = np.array([support(each) for each in responses])
            took = (time.perf_counter() - started) / len(responses) * 1_000
            note = f"n={len(responses)}, {took:.1f} ms each; {told(responses, found)}"
            area = measured(responses, found)
            rows.append(Row(f"{name}, {method}: AUROC", area, floor, "word overlap", note=note))
    return rows


def weakest(response: Response, embed: Any) -> float:
    """Return the support of the sentence that has least of it."""
    claims = [response.text[start:end] for start, end in sentence_spans(response.text)]
    found = supported(claims, [response.context], embed)
    return min((each.support for each in found), default=0.0)


def told(responses: Sequence[Response], supports: npt.NDArray[np.float64]) -> str:
    """Return how well the metric's threshold tells the wrong ones: precision and recall."""
    wrong = np.array([each.is_wrong for each in responses])
    called = supports < Faithfulness().min_support
    hits = int((called & wrong).sum())
    shares = [f"{hits / max(1, int(of.sum())):.2f}" for of in (called, wrong)]
    return f"below {Faithfulness().min_support:g}: precision {shares[0]}, recall {shares[1]}"


def measured(responses: Sequence[Response], supports: npt.NDArray[np.float64]) -> Spread:
    """Return the AUROC and the ends of its 95 % interval, groups being drawn again."""
    risks = -supports
    wrong = np.array([each.is_wrong for each in responses])
    members: dict[str, list[int]] = defaultdict(list)
    for place, each in enumerate(responses):
        members[each.group].append(place)
    groups = [np.array(each) for each in members.values()]
    rng = np.random.default_rng(SEED)
    areas = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([groups[n] for n in rng.integers(len(groups), size=len(groups))])
        if 0 < wrong[chosen].sum() < chosen.size:
            areas.append(auroc(risks[chosen], wrong[chosen]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return Spread((float(low), auroc(risks, wrong), float(high)))


def drawn(responses: Sequence[Response], most: int) -> list[Response]:
    """Return whole groups until there are enough."""
    names = sorted({each.group for each in responses})
    random.Random(SEED).shuffle(names)
    rank = {name: place for place, name in enumerate(names)}
    return sorted(responses, key=lambda each: rank[each.group])[:most]


def _rows(path: Path) -> Iterator[Any]:
    with gzip.open(path) as lines:
        yield from map(orjson.loads, lines)


def _halueval(data: Path) -> Iterator[Response]:
    for row in _rows(data / "groundedness" / "halueval_qa.jsonl.gz"):
        yield Response(row["response"], row["context"], bool(row["label"]), row["group"])


def _climate_fever(data: Path) -> Iterator[Response]:
    for row in _rows(data / "groundedness" / "climate_fever_pairs.jsonl.gz"):
        group = row["response"]
        yield Response(row["response"], row["context"], bool(row["label"]), group)


def _factscore(data: Path) -> Iterator[Response]:
    folder = data / "groundedness" / "factscore"
    documents = {row["id"]: row["context"] for row in _rows(folder / "documents.jsonl.gz")}
    for row in _rows(folder / "claims.jsonl.gz"):
        context = documents[row["doc_id"]]
        yield Response(row["claim"], context, bool(row["label"]), row["doc_id"])


def _scifact(data: Path) -> Iterator[Response]:
    for row in _rows(data / "retrieval" / "scifact" / "claim_pairs.jsonl.gz"):
        group = row["id"].partition("|")[0]
        yield Response(row["response"], row["context"], bool(row["label"]), group)


DATASETS: Mapping[str, Callable[[Path], Iterator[Response]]] = {
    "HaluEval QA": _halueval,
    "Climate-FEVER": _climate_fever,
    "FActScore": _factscore,
    "SciFact": _scifact,
}
