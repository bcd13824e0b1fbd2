"""Dense indexes at 100,000 and 1,000,000 vectors: build, size, recall, latency, restart."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import corpus, environments, judged, populated, processes
from benchmarks.options import Options
from benchmarks.processes import PeerFailed
from benchmarks.retrieval_quality import VECTORS
from benchmarks.table import Bar, Row, Spread
from infra.contracts import Vectors
from retrieval.embedders import open_embedder

SIZES = (100_000, 1_000_000)
QUICK_SIZES = (2_000,)
SENTENCES = 100_000
QUICK_SENTENCES = 1_000
QUESTIONS = 400
LIMIT = 10
CANDIDATES = 100
"""What hybrid search asks of each side."""
CLIENTS = (1, 8)
LOAD_SECONDS = 5.0
QUICK_LOAD_SECONDS = 0.2
NOISE = 0.62
"""Length of what is added to a unit vector: the cosine to the original is 0.85."""
ENOUGH = 0.95
"""Peers are asked with the least effort of theirs that finds so much."""
OURS = "local_index"
BARS: Mapping[str, Bar] = {
    "resident": Bar(1024, at_least=False),
    "recall": Bar(0.95, at_least=True),
    "p50": Bar(10, at_least=False),
    "restart": Bar(5, at_least=False),
}


@dataclass(frozen=True, slots=True)
class System:
    """An index with the settings it is measured with."""

    name: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    efforts: Sequence[int] = (0,)
    """What may be tried until enough is found; ours chooses by itself."""
    largest: int = SIZES[-1]


SYSTEMS = (
    System("ours", OURS),
    System("our exact type", OURS, {"type": "exact"}, largest=SIZES[0]),
    System("our hnsw type", OURS, {"type": "hnsw"}, largest=SIZES[0]),
    System("hnswlib", "hnswlib", efforts=(32, 64, 128, 256, 512)),
    System("usearch", "usearch", efforts=(32, 64, 128, 256, 512)),
    System("lancedb", "lancedb", efforts=(8, 16, 32, 64, 128)),
)
"""The first is what the settings choose by default; the others stand beside it."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Vectors on disk, questions, and what is right."""

    folder: Path
    size: int
    truth: NDArray[np.int64]
    """`(questions, CANDIDATES)`."""

    @property
    def files(self) -> dict[str, str]:
        return {
            "vectors": str((self.folder / "vectors.npy").absolute()),
            "questions": str((self.folder / "questions.npy").absolute()),
        }

    def recall(self, found: Sequence[Sequence[int]], limit: int) -> float:
        wanted = min(limit, int(self.truth.shape[1]))
        pairs = zip(found, self.truth, strict=True)
        hits = [len({*one[:limit]} & {*right[:limit].tolist()}) for one, right in pairs]
        return sum(hits) / (wanted * len(hits))


Figures = dict[str, float]


def run(options: Options) -> list[Row]:
    """Embed real sentences, perturb copies of them up to each size, and measure every index."""
    options.say("embedding real sentences")
    real, questions = _real(options)
    rows: list[Row] = []
    for size in QUICK_SIZES if options.quick else SIZES:
        options.say(f"making {size:,} vectors of {len(real):,}")
        task = _task(options.folder / str(size), real, questions, size=size)
        measured, missing = {}, {}
        for system in SYSTEMS:
            if size > system.largest:
                continue
            options.say(f"{size:,} vectors: {system.name}")
            try:
                measured[system.name] = _measure(system, task, options)
            except PeerFailed as error:
                missing[system.name] = str(error)
        rows += _rows(f"{size:,}", measured, missing, is_judged=size == SIZES[-1])
        for path in task.folder.glob("*.npy"):
            path.unlink()
    return rows


def perturbed(
    real: Vectors, size: int, chance: np.random.Generator, *, noise: float = NOISE
) -> Iterator[NDArray[np.float16]]:
    """Yield `size` unit vectors: the real ones first, then copies of them with Gaussian noise."""
    width = real.shape[1]
    for start in range(0, size, len(real)):
        rows = real[: min(len(real), size - start)]
        if start:
            rows = rows + chance.standard_normal(rows.shape, dtype=np.float32) * (
                noise / np.sqrt(width)
            )
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        yield rows.astype(np.float16)


def nearest(vectors: NDArray[np.float16], questions: Vectors, limit: int) -> NDArray[np.int64]:
    """Return `(questions, limit)` positions by an exact scan, best first."""
    scores = np.empty((len(questions), 0), dtype=np.float32)
    positions = np.empty((len(questions), 0), dtype=np.int64)
    for start in range(0, len(vectors), 20_000):
        block = questions @ vectors[start : start + 20_000].astype(np.float32).T
        here = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores = np.concatenate([scores, block], axis=1)
        positions = np.concatenate([positions, here], axis=1)
        if scores.shape[1] > limit:
            kept = np.argpartition(-scores, limit, axis=1)[:, :limit]
            scores = np.take_along_axis(scores, kept, axis=1)
            positions = np.take_along_axis(positions, kept, axis=1)
    return np.take_along_axis(positions, np.argsort(-scores, axis=1, kind="stable"), axis=1)


def _real(options: Options) -> tuple[Vectors, Vectors]:
    embedder = open_embedder(options.embedder)
    sentences = _sentences(options)
    folder = options.folder / "vectors" if options.quick else VECTORS
    vectors = judged.stored_vectors(embedder, sentences, folder)
    questions = list(_questions(options))
    chosen = np.random.default_rng(1).permutation(len(questions))[:QUESTIONS]
    return vectors, embedder.embed([questions[number] for number in chosen], kind="query")


def _sentences(options: Options) -> list[str]:
    found: dict[str, None] = {}
    for text in _texts(options):
        for sentence in populated.SENTENCE.split(" ".join(text.split())):
            if 40 <= len(sentence) <= 400:
                found[sentence] = None
    sentences = list(found)
    np.random.default_rng(0).shuffle(sentences)
    return sentences[: QUICK_SENTENCES if options.quick else SENTENCES]


def _texts(options: Options) -> Iterator[str]:
    if options.data is None:
        for path in sorted(corpus.DOCS.rglob("*.md")):
            yield path.read_text(encoding="utf-8")
        return
    for name in reversed(judged.NAMES):
        for entry in _lines(options.data / "retrieval" / name / "corpus.jsonl.gz"):
            yield f"{entry.get('title') or ''}. {entry['text']}"
    yield (options.data / corpus.BOOK).read_text(encoding="utf-8")


def _questions(options: Options) -> Iterator[str]:
    if options.data is None:
        yield from ("how do I ingest a folder", "what is a citation", "which formats are read")
        return
    for name in judged.NAMES:
        for entry in _lines(options.data / "retrieval" / name / "queries.jsonl.gz"):
            yield entry["text"]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _task(folder: Path, real: Vectors, questions: Vectors, *, size: int) -> _Task:
    folder.mkdir()
    vectors = np.empty((size, real.shape[1]), dtype=np.float16)
    start = 0
    for block in perturbed(real, size, np.random.default_rng(2)):
        vectors[start : start + len(block)] = block
        start += len(block)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "questions.npy", questions)
    return _Task(folder, size, nearest(vectors, questions, min(CANDIDATES, size)))


def _measure(system: System, task: _Task, options: Options) -> Figures:
    """Build in one process, open and ask in another."""
    with processes.running(system.module, _python(system, options), options) as peer:
        built = peer.ask({"do": "build", **_request(system, task)})
    return {
        "build": built["seconds"],
        "disk": built["bytes"] / task.size,
        "measured recall": min(
            (piece["recall"] for piece in built.get("pieces", ()) if piece), default=1.0
        ),
        **_answers(system, task, options),
    }


def _answers(system: System, task: _Task, options: Options) -> Figures:
    figures: Figures = {}
    asking = {**_request(system, task), "limit": LIMIT, "effort": system.efforts[0]}
    launched = time.perf_counter()
    with processes.running(system.module, _python(system, options), options) as peer:
        peer.ask({"do": "open", **asking})
        figures["restart"] = time.perf_counter() - launched
        for effort in system.efforts:
            asking["effort"] = effort
            answer = peer.ask({"do": "ask", **asking})
            figures["recall"] = task.recall(answer["found"], LIMIT)
            if figures["recall"] >= ENOUGH:
                break
        answer = peer.ask({"do": "ask", **asking})  # once more: its pages are in memory now
        for percent in (50, 99):
            figures[f"p{percent}"] = float(np.percentile(answer["milliseconds"], percent))
        seconds = QUICK_LOAD_SECONDS if options.quick else LOAD_SECONDS
        for clients in CLIENTS:
            load = {"do": "load", **asking, "clients": clients, "seconds": seconds}
            figures[f"clients {clients}"] = peer.ask(load)["per_second"]
        wide = peer.ask({"do": "ask", **asking, "limit": CANDIDATES})
        figures["wide recall"] = task.recall(wide["found"], CANDIDATES)
        figures["wide p50"] = float(np.percentile(wide["milliseconds"], 50))
        figures["resident"] = wide["resident"]["all"] / 2**20
        figures["own"] = (wide["resident"]["all"] - wide["resident"]["file"]) / 2**20
    return figures


def _request(system: System, task: _Task) -> dict[str, Any]:
    folder = task.folder.absolute() / system.name.replace(" ", "-")
    return {"folder": str(folder), "options": dict(system.options), **task.files}


def _python(system: System, options: Options) -> Path:
    if system.module == OURS:
        return Path(sys.executable)
    if not options.peers:
        raise PeerFailed("left out: --no-peers")
    python = processes.find(system.module, options)
    if python is None:
        raise PeerFailed(environments.NOT_INSTALLED)
    return python


NAMES: Mapping[str, tuple[str, str]] = {
    "build": ("build and save", "s"),
    "disk": ("on disk", "bytes per vector"),
    "resident": ("resident, mapped files included", "MiB"),
    "own": ("resident, without mapped files", "MiB"),
    "restart": ("process start to first answer", "s"),
    "recall": (f"recall@{LIMIT}", ""),
    "wide recall": (f"recall@{CANDIDATES}", ""),
    "p50": ("p50", "ms"),
    "p99": ("p99", "ms"),
    "wide p50": (f"p50 of {CANDIDATES} hits", "ms"),
    "clients 1": ("1 client", "questions/s"),
    "clients 8": ("8 clients", "questions/s"),
}


def _rows(
    at: str, measured: Mapping[str, Figures], missing: Mapping[str, str], *, is_judged: bool
) -> Iterator[Row]:
    ours = measured[SYSTEMS[0].name]
    yield Row(f"{at}: recall@{LIMIT} as measured at the build", Spread((ours["measured recall"],)))
    for key, (name, unit) in NAMES.items():
        figure = Spread((ours[key],))
        bar = BARS.get(key) if is_judged else None
        yield Row(f"{at}: {name}", figure, unit=unit, bar=bar)
        for other, figures in list(measured.items())[1:]:
            yield Row(f"{at}: {name}", figure, Spread((figures[key],)), other, unit)
    for other, why in missing.items():
        yield Row(f"{at}: {NAMES['p50'][0]}", Spread((ours["p50"],)), None, other, "ms", why)
