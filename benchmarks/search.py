"""Search on the real stack at 10,000 and 100,000 chunks: each step, p50 and p99."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from benchmarks import corpus, environments, populated, processes
from benchmarks.options import Options
from benchmarks.processes import PeerFailed
from benchmarks.table import Bar, Row, Spread
from infra.contracts import Vectors
from infra.database.schema import chunk
from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.indexes import SearchIndex
from retrieval.search import SearchRequest
from service.wiring import Components

SIZES = (10_000, 100_000)
QUICK_SIZES = (1_000,)
QUESTIONS = 300
QUICK_QUESTIONS = 20
LIMIT = 8
RECALL_AT = 10
BAR = Bar(8.0, at_least=False)
STEPS = ("embed", "dense", "lexical", "fuse", "fetch")
SEARCHED = ("dense", "lexical", "fuse")
BY_RANK = "fuse by rank"
"""The fusion step of a second search for the same question, which looks at ranks alone."""
FALLBACK_QUESTIONS = ("how do I ingest a folder", "what is a citation", "which formats are read")

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database holds of a collection: what the peers search, and what is exact."""

    texts: Sequence[str]
    ids: NDArray[np.int64]
    vectors: Vectors


def run(options: Options) -> list[Row]:
    """Fill collections of each size and ask every question `options.repeats` times."""
    settings = load_settings(
        data_folder=options.folder / "data", retrieval={"embedder": options.embedder}
    )
    components = Components(settings)
    rows = []
    try:
        options.say("cutting and embedding real text")
        pieces = populated.cut(
            components.embedder, options, count=500 if options.quick else populated.MAX_PIECES
        )
        questions = _questions(options)
        for size in QUICK_SIZES if options.quick else SIZES:
            options.say(f"filling {size:,} chunks")
            into = populated.fill(components, pieces, name=f"chunks-{size}", count=size)
            rows += _measure(components, into, questions, options=options)
    finally:
        components.close()
    return rows


def _measure(
    components: Components, into: Collection, questions: Sequence[str], *, options: Options
) -> list[Row]:
    start = perf_counter()
    view = components.views.get(into)
    view.refresh()
    view.checkpoint(at_least=1)
    built = perf_counter() - start
    stored = _stored(components, into)
    at = f"{len(stored.texts):,} chunks:"
    options.say(f"{at} asking {len(questions)} questions {options.repeats} times")
    passes = _ask(components, into, questions, repeats=options.repeats)
    vectors = components.embedder.embed(list(questions), kind="query")
    rows = [Row(f"{at} index built and saved", Spread((built,)), unit="s")]
    brute = _brute_force(stored.vectors, vectors)
    lexical, note = _bm25s(stored.texts, questions, options=options)
    peers = {"dense": brute, "lexical": lexical, "fuse": passes.pop(BY_RANK)}
    rows += _step_rows(at, passes, peers=peers, note=note)
    rows += _sum_rows(at, passes, bar=None if options.quick else BAR)
    rows.append(_memory_row(at, stored.vectors, dense=passes["dense"]))
    recall = _recall(view.index, stored, vectors)
    rows.append(Row(f"{at} dense recall@{RECALL_AT}", Spread((recall,)), unit="against exact"))
    return rows


def _questions(options: Options) -> list[str]:
    count = QUICK_QUESTIONS if options.quick else QUESTIONS
    if options.data is None:
        return list(FALLBACK_QUESTIONS)
    return corpus.questions(options.data)[:count]


def _ask(
    components: Components, into: Collection, questions: Sequence[str], *, repeats: int
) -> dict[str, list[Samples]]:
    """Return milliseconds by step, one array per pass over the questions."""
    for question in questions[:20]:
        components.retriever.search(into, SearchRequest(question, limit=LIMIT))
    passes: dict[str, list[Samples]] = defaultdict(list)
    for _ in range(repeats):
        taken: dict[str, list[float]] = defaultdict(list)
        for question in questions:
            start = perf_counter()
            result = components.retriever.search(into, SearchRequest(question, limit=LIMIT))
            total = (perf_counter() - start) * 1e3
            for step in STEPS:
                taken[step].append(result.timings_ms[step])
            by_rank = SearchRequest(question, limit=LIMIT, fusion="rrf")
            ranked = components.retriever.search(into, by_rank)
            taken[BY_RANK].append(ranked.timings_ms["fuse"])
            taken["sum"].append(sum(result.timings_ms[step] for step in SEARCHED))
            taken["total"].append(total - result.timings_ms["embed"])
        for step, values in taken.items():
            passes[step].append(np.array(values))
    return passes


def _step_rows(
    at: str,
    passes: Mapping[str, list[Samples]],
    *,
    peers: Mapping[str, list[Samples] | None],
    note: str,
) -> Iterable[Row]:
    names = {"dense": "numpy, every vector", "lexical": "bm25s", "fuse": "our RRF"}
    for step in STEPS:
        peer = peers.get(step)
        for percent in (50, 99):
            yield Row(
                f"{at} {step} p{percent}",
                _percentile(passes[step], percent),
                _percentile(peer, percent) if peer else None,
                names.get(step, ""),
                "ms",
                note if step == "lexical" else "",
            )


def _sum_rows(at: str, passes: Mapping[str, list[Samples]], *, bar: Bar | None) -> Iterable[Row]:
    """The sum counts dense and lexical one after the other; the total is the wall, side by side."""
    bar_here = bar if "100,000" in at else None
    for percent in (50, 99):
        yield Row(
            f"{at} dense + lexical + fusion p{percent}",
            _percentile(passes["sum"], percent),
            unit="ms",
            bar=bar_here if percent == 50 else None,
        )
    for percent in (50, 99):
        yield Row(
            f"{at} whole search without embed p{percent}",
            _percentile(passes["total"], percent),
            unit="ms",
        )


def _percentile(passes: Sequence[Samples], percent: float) -> Spread:
    return Spread(tuple(float(np.percentile(samples, percent)) for samples in passes))


def _brute_force(vectors: Vectors, questions: Vectors) -> list[Samples]:
    """Milliseconds of a float32 product with every vector and a partial sort, per question."""
    limit = min(100, len(vectors))
    taken = []
    for question in questions:
        start = perf_counter()
        scores = vectors @ question
        best = np.argpartition(scores, -limit)[-limit:]
        best[np.argsort(-scores[best])]
        taken.append((perf_counter() - start) * 1e3)
    return [np.array(taken)]


def _memory_row(at: str, vectors: Vectors, *, dense: Sequence[Samples]) -> Row:
    """Dense search beside one read of all vectors as they are stored, in float16."""
    halves = vectors.astype(np.float16).view(np.int64)
    taken = []
    for _ in range(20):
        start = perf_counter()
        halves.sum()
        taken.append((perf_counter() - start) * 1e3)
    rate = halves.nbytes / (min(taken) / 1e3) / 1e9
    note = f"{halves.nbytes / 1e6:.0f} MB, one core, {rate:.1f} GB/s"
    return Row(
        f"{at} dense p50 beside memory",
        _percentile(dense, 50),
        Spread(tuple(taken)),
        "float16 vectors read once",
        "ms",
        note,
    )


def _bm25s(
    texts: Sequence[str], questions: Sequence[str], *, options: Options
) -> tuple[list[Samples] | None, str]:
    if not options.peers:
        return None, "left out: --no-peers"
    python = processes.find("bm25s", options)
    if python is None:
        return None, environments.NOT_INSTALLED
    texts_file = Path(options.folder, "texts.json")
    texts_file.write_text(json.dumps(texts), encoding="utf-8")
    request: dict[str, Any] = {"texts_file": str(texts_file), "limit": 100}
    try:
        with processes.running("bm25s", python, options) as peer:
            answer = peer.ask({**request, "questions": list(questions)})
    except PeerFailed as error:
        return None, str(error)
    return [np.array(answer["milliseconds"])], f"indexed in {answer['index_seconds']:.1f} s"


def _stored(components: Components, into: Collection) -> _Stored:
    with components.database.read() as connection:
        rows = connection.execute(
            select(chunk.c.id, chunk.c.text, chunk.c.vector)
            .where(chunk.c.build_id == into.build_id)
            .order_by(chunk.c.id)
        ).all()
    raw = b"".join(row.vector for row in rows)
    vectors = np.frombuffer(raw, dtype="<f2").astype(np.float32).reshape(len(rows), -1)
    return _Stored([row.text for row in rows], np.array([row.id for row in rows]), vectors)


def _recall(index: SearchIndex, stored: _Stored, questions: Vectors) -> float:
    """The share of the exact nearest chunks that the index finds."""
    shares = []
    for question in questions:
        exact = stored.ids[np.argsort(-(stored.vectors @ question), kind="stable")[:RECALL_AT]]
        found = index.dense(question, RECALL_AT).chunk_ids
        shares.append(len(np.intersect1d(exact, found)) / len(exact))
    return float(np.mean(shares))
