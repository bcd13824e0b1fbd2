"""Quality of search over judged collections: BM25, dense, fusions, reranked, beside txtai."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

from benchmarks import environments, judged, processes
from benchmarks.judged import Cut, Judged
from benchmarks.options import Options
from benchmarks.processes import PeerFailed
from benchmarks.table import Bar, Row, Spread
from infra.contracts import Vectors
from infra.errors import NotFound
from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.search import SearchRequest
from service.wiring import Components

MEASURES = (nDCG @ 10, R @ 100, RR @ 10)
HEAD = 50
"""Passages from which the first 10 documents are taken; as in use, each search is asked for 100."""
TAIL = 300
"""Passages from which the first 100 documents are taken."""
READ = 30
"""Passages that the reranker reads: 0.6 seconds of processor time a question."""
OURS = "hybrid"
RERANKED = "hybrid + late interaction"
SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "BM25": {"mode": "lexical"},
    "dense": {"mode": "dense"},
    "RRF": {"fusion": "rrf"},
    "convex": {"smoothing": 0.0},
    OURS: {},
    "hybrid + MMR": {"diversity": 0.3},
    RERANKED: {"rerank": True},
}
PEER = "txtai"
PEER_MODULE = "txtai_search"
QUICK_NAMES = ("adi", "scifact")
QUICK_DOCUMENTS = 100
QUICK_QUESTIONS = 20
RESAMPLES = 10_000
SEED = 20261124
VECTORS = Path(".ragstone", "benchmark-vectors")
"""Embeddings outlive a run here: they take minutes, and the next run asks for the same."""
SCIFACT_BAR = Bar(73.5, at_least=True)
AVERAGE_BAR = Bar(1.5, at_least=True)
AHEAD = Bar(0.0, at_least=True)

Run = dict[str, dict[str, float]]
"""By question, then by document: the score that puts documents in order."""
Values = Mapping[str, NDArray[np.float64]]
"""By measure: one value per question, in one order for all systems; 100 is perfect."""


@dataclass(frozen=True, slots=True)
class Published:
    """A figure somebody else gives for the same documents, questions and judgements."""

    system: str
    value: float
    """nDCG@10."""
    source: str


PUBLISHED: Mapping[str, Sequence[Published]] = {
    "scifact": (
        Published("BM25, k1 0.9, b 0.4", 67.6, "Lucene, in the README of xhluca/bm25-benchmarks"),
        Published("BM25, k1 1.2, b 0.75", 68.0, "Lucene, in the README of xhluca/bm25-benchmarks"),
        Published("Elasticsearch", 69.0, "README of xhluca/bm25-benchmarks"),
        Published("all-MiniLM-L6-v2", 64.5, "MTEB, as quoted by others"),
        Published("bge-small-en-v1.5", 71.27, "embeddings-benchmark/results, SciFact.json"),
    )
}


def run(options: Options) -> list[Row]:
    """Fill each collection, ask its test questions of every system, compare with ours.

    Raises:
        NotFound: there is no folder of judged collections.
    """
    if options.data is None:
        raise NotFound("folder of judged collections", "RAGSTONE_TEST_DATA")
    retrieval = {
        "embedder": judged.PLUGIN,
        "embedder_options": {"inner": options.embedder},
        "reranker": "late_interaction",
        "rerank_candidates": READ,
    }
    components = Components(load_settings(data_folder=options.folder / "data", retrieval=retrieval))
    measured: dict[str, dict[str, Values]] = {}
    rows: list[Row] = []
    try:
        for name in QUICK_NAMES if options.quick else judged.NAMES:
            collection = _load(name, options)
            measured[name], missing = _measure(components, collection, options=options)
            rows += _rows(name, measured[name], missing=missing, quick=options.quick)
    finally:
        components.close()
    return [*rows, *_averages(measured, quick=options.quick)]


def evaluate(collection: Judged, head: Run, tail: Run) -> Values:
    """Return every measure per question; one that found nothing counts 0.

    Args:
        collection: with the judgements.
        head: what the measures at 10 look at.
        tail: what the measures at 100 look at.
    """
    values = {}
    for measure in MEASURES:
        found = tail if measure["cutoff"] == 100 else head
        by_question = {
            value.query_id: value.value
            for value in ir_measures.iter_calc([measure], collection.judgements, found)
        }
        values[str(measure)] = 100 * np.array(
            [by_question.get(question, 0.0) for question in collection.questions]
        )
    return values


def interval(
    differences: Sequence[NDArray[np.float64]], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean of means of paired differences.

    Questions are drawn with replacement within each set; sets count alike.
    """
    chance = np.random.default_rng(SEED)
    means = np.zeros(resamples)
    for values in differences:
        drawn = chance.integers(len(values), size=(resamples, len(values)))
        means += values[drawn].mean(axis=1) / len(differences)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def ask(
    components: Components, into: Collection, collection: Judged, *, limit: int, **how: Any
) -> Run:
    """Ask every question; a document's score is that of its best passage."""
    found: Run = {}
    for question, text in collection.questions.items():
        request = SearchRequest(text, limit=limit, **how)
        passages = components.retriever.search(into, request).passages
        # By rank: reranked or diverse passages are not in the order of their scores.
        documents = dict.fromkeys(judged.identifier(passage.source) for passage in passages)
        found[question] = {name: 1.0 / rank for rank, name in enumerate(documents, start=1)}
    return found


def _load(name: str, options: Options) -> Judged:
    assert options.data is not None
    collection = judged.load(name, options.data)
    if options.quick:
        return judged.quick(collection, documents=QUICK_DOCUMENTS, questions=QUICK_QUESTIONS)
    return collection


def _measure(
    components: Components, collection: Judged, *, options: Options
) -> tuple[dict[str, Values], str]:
    """Return the values of every system, and why the peer is not among them."""
    cuts = judged.cut(collection, components)
    texts = judged.texts(cuts)
    options.say(f"{collection.name}: embedding {len(texts):,} chunks")
    folder = options.folder / "vectors" if options.quick else VECTORS
    vectors = judged.stored_vectors(components.embedder, texts, folder)
    into = judged.fill(components, collection, cuts, vectors=vectors)
    found = {}
    for system, how in SYSTEMS.items():
        options.say(f"{collection.name}: {system}, {len(collection.questions)} questions")
        asked = {"rerank": False, **how}
        head = ask(components, into, collection, limit=HEAD, **asked)
        # What is read changes the order of the head alone, which holds the same documents.
        tail = ask(components, into, collection, limit=TAIL, **{**asked, "rerank": False})
        found[system] = evaluate(collection, head, tail)
    try:
        peer = _txtai(components, collection, cuts, vectors=vectors, options=options)
        found[PEER] = evaluate(collection, peer, peer)
    except PeerFailed as error:
        return found, str(error)
    return found, ""


def _txtai(
    components: Components,
    collection: Judged,
    cuts: Sequence[Cut],
    *,
    vectors: Vectors,
    options: Options,
) -> Run:
    """Ask the same chunks with the same vectors of txtai's hybrid search."""
    python = processes.find(PEER, options) if options.peers else None
    if python is None:
        raise PeerFailed(environments.NOT_INSTALLED if options.peers else "left out: --no-peers")
    options.say(f"{collection.name}: {PEER}")
    folder = options.folder / f"{PEER}-{collection.name}"
    folder.mkdir()
    questions = list(collection.questions.values())
    for name, texts, rows in (
        ("texts", judged.texts(cuts), vectors),
        ("questions", questions, components.embedder.embed(questions, kind="query")),
    ):
        (folder / f"{name}.json").write_text(json.dumps(texts), encoding="utf-8")
        np.save(folder / f"{name}.npy", rows)
    owners = [part.entry.id for part in cuts for _ in part.chunks]
    with processes.running(PEER_MODULE, python, options) as peer:
        hits = peer.ask({"folder": str(folder.absolute()), "limit": TAIL})["hits"]
    found: Run = {}
    for question, one in zip(collection.questions, hits, strict=True):
        documents = dict.fromkeys(owners[position] for position, _ in one)
        found[question] = {name: 1.0 / rank for rank, name in enumerate(documents, start=1)}
    return found


def _rows(name: str, found: Mapping[str, Values], *, missing: str, quick: bool) -> Iterator[Row]:
    for measure in map(str, MEASURES):
        ours = Spread((float(found[OURS][measure].mean()),))
        for system in (*SYSTEMS, PEER):
            if system == OURS:
                continue
            metric = f"{name} {measure}"
            if system not in found:
                yield Row(metric, ours, peer_name=system, note=missing)
                continue
            theirs = Spread((float(found[system][measure].mean()),))
            note = difference([found[OURS][measure] - found[system][measure]])
            yield Row(metric, ours, theirs, system, note=note)
        if measure == str(MEASURES[0]):
            yield _reranked(name, found, quick=quick)
    figures = Spread((float(found[OURS][str(MEASURES[0])].mean()),))
    bar = SCIFACT_BAR if name == "scifact" and not quick else None
    for published in PUBLISHED.get(name, ()):
        note = f"published: {published.source}"
        value = Spread((published.value,))
        yield Row(f"{name} {MEASURES[0]}", figures, value, published.system, note=note, bar=bar)
        bar = None


def _reranked(name: str, found: Mapping[str, Values], *, quick: bool) -> Row:
    """Return the reranked hybrid beside plain rank fusion."""
    measure = str(MEASURES[0])
    ours, theirs = found[RERANKED][measure], found["RRF"][measure]
    return Row(
        f"{name} {measure}, reranked",
        Spread((float(ours.mean()),)),
        Spread((float(theirs.mean()),)),
        "RRF",
        note=difference([ours - theirs]),
        bar=SCIFACT_BAR if name == "scifact" and not quick else None,
    )


def _averages(measured: Mapping[str, Mapping[str, Values]], *, quick: bool) -> Iterator[Row]:
    measure = str(MEASURES[0])
    others = [system for system in (*SYSTEMS, PEER) if system not in (OURS, RERANKED)]
    pairs = [*((OURS, other) for other in others), (RERANKED, "RRF"), (RERANKED, OURS)]
    for ours, other in pairs:
        if not all(other in found for found in measured.values()):
            continue
        differences = [found[ours][measure] - found[other][measure] for found in measured.values()]
        mean = float(np.mean([values.mean() for values in differences]))
        bar = None if quick or "MMR" in other else AVERAGE_BAR if other == "RRF" else AHEAD
        yield Row(
            f"mean over {len(measured)} sets: {measure} of {ours} above {other}",
            Spread((mean,)),
            unit="points",
            note=difference(differences),
            bar=bar,
        )


def difference(differences: Sequence[NDArray[np.float64]]) -> str:
    low, high = interval(differences)
    mean = float(np.mean([values.mean() for values in differences]))
    return f"{mean:+.2f}, 95 % of resamples in [{low:+.2f}, {high:+.2f}]"
