"""Extractive answers: right sentences, refusals, calibration and time, on held-out articles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case, Pool, RememberingEmbedder, ask, ask_off_topic, halves, read_rows
from benchmarks.options import Options
from benchmarks.table import Row, Spread
from infra.contracts import Embedder
from retrieval.embedders import open_embedder
from service.engines import EngineContext, Prompt
from service.engines import extractive as engine
from service.engines.extractive import Extractive, Selection, candidates

QUICK_EVERY = 40
TIMED = 60
BINS = 10
PEER = "highest cosine"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question: what the engine would tell and refuse, and the plain alternative's pick."""

    case: Case
    told: Selection
    """What is told where nothing is refused."""
    refused: bool
    best_cosine: float
    is_peer_right: bool

    @property
    def right(self) -> tuple[bool, ...]:
        """By sentence told, in the order of falling support."""
        order = np.argsort(-np.array(self.told.supports), kind="stable")
        found = [self.told.sentences[position] for position in order]
        return tuple(
            self.case.holds_answer(self.case.passages[one.passage], one.text) for one in found
        )

    @property
    def top_support(self) -> float:
        return max(self.told.supports, default=0.0)


def run(options: Options) -> list[Row]:
    """Measure the shipped weights on the half of the articles that they were not fitted on."""
    if options.data is None:
        return [Row("held-out questions", None, note="needs the shared datasets")]
    inner = open_embedder(options.embedder)
    embedder = RememberingEmbedder(inner)
    every = QUICK_EVERY if options.quick else 1
    open_pool = partial(_pool, options, embedder)
    answerer = engine.build(EngineContext(embedder))
    judge = partial(_judge, answerer, embedder)

    squad = open_pool("squad_v2")
    rows = read_rows(options.data / "qa/squad_v2/questions.jsonl.gz", every=every)
    _, held_out = halves(squad)
    titles = {row["id"]: row["title"] for row in squad.paragraphs}
    own = [row for row in rows if titles[row["doc_id"]] in held_out]
    options.say(f"SQuAD 2.0, {len(own)} questions of {len(held_out)} held-out articles")
    on_topic = judge(ask(squad, own))
    off_topic = judge(ask_off_topic(squad, own[::3], articles=frozenset(squad.articles)))
    options.say("questions of other fields")
    far = judge(_strangers(squad, options, every))
    timed = _milliseconds(inner, [outcome.case for outcome in on_topic[:TIMED]])
    squad.close()
    return [
        *_quality(on_topic),
        *_refusals(on_topic, off_topic, far),
        *_shifts(open_pool, judge, options, every),
        Row("time to select, sentences not seen before", Spread(tuple(timed)), unit="ms"),
    ]


def _pool(options: Options, embedder: Embedder, name: str) -> Pool:
    assert options.data is not None
    paragraphs = read_rows(options.data / "qa" / name / "corpus.jsonl.gz")
    folder = options.folder / name.replace("/", "-")
    return Pool(paragraphs, folder, embedder)


def _strangers(pool: Pool, options: Options, every: int) -> list[Case]:
    """Open questions of web searchers and biomedical claims, asked of encyclopedia articles."""
    assert options.data is not None
    web = read_rows(options.data / "guardrails/benign.jsonl.gz", every=every)
    claims = read_rows(options.data / "retrieval/scifact/queries.jsonl.gz", every=max(every, 3))
    texts = [row["text"] for row in web if row["kind"] == "benign_question"]
    texts += [row["text"] for row in claims]
    pool.warm(texts)
    return [Case(text, pool.search(text)) for text in texts]


def _judge(answerer: Extractive, embedder: Embedder, cases: Sequence[Case]) -> list[Outcome]:
    outcomes = []
    frank = engine.build(EngineContext(embedder, {"threshold": 0.0}))
    for case in cases:
        prompt = Prompt(case.question, case.passages)
        evidence, chosen = candidates(prompt)
        best, is_right = 0.0, False
        if chosen:
            sentences = [evidence.sentences[position] for position in chosen]
            vectors = embedder.embed([one.read_as for one in sentences], kind="document")
            cosines = vectors @ embedder.embed([case.question], kind="query")[0]
            top = sentences[int(cosines.argmax())]
            best = float(cosines.max())
            is_right = case.holds_answer(case.passages[top.passage], top.text)
        told = frank.select(prompt)
        refused = told.answerable < answerer.threshold
        outcomes.append(Outcome(case, told, refused, best, is_right))
    return outcomes


def _quality(outcomes: Sequence[Outcome]) -> list[Row]:
    answerable = [one for one in outcomes if one.case.answers]
    reachable = _mean(
        any(one.case.holds_answer(found, found.text) for found in one.case.passages)
        for one in answerable
    )
    told = [one for one in answerable if not one.refused]
    top = np.array([one.top_support for one in outcomes])
    hit = np.array([one.right[:1] == (True,) for one in outcomes], dtype=float)
    labels = np.array([bool(one.case.answers) for one in outcomes])
    sure = np.array([one.told.answerable for one in outcomes])
    cosine = np.array([one.best_cosine for one in outcomes])
    peer_hit = np.array([one.is_peer_right for one in outcomes], dtype=float)
    return [
        _row("answer among the passages", reachable, note="the ceiling of what follows"),
        _row(
            "best sentence holds the answer",
            _mean(one.right[0] for one in answerable if one.right),
            peer=_mean(one.is_peer_right for one in answerable),
        ),
        _row("any sentence told holds it", _mean(any(one.right) for one in answerable)),
        _row("the same, where it answers", _mean(any(one.right) for one in told)),
        _row("sentences told", _mean(len(one.right) for one in told), unit="each"),
        _row(
            "AUROC answerable or not, on topic",
            auroc(sure, labels),
            peer=auroc(cosine, labels),
        ),
        _row("risk-coverage area (lower is better)", aurc(sure, hit), peer=aurc(cosine, peer_hit)),
        _row("calibration error of support, best sentence", calibration_error(top, hit)),
        _row("calibration error of support, all told", _error_of_all(outcomes)),
        _row("calibration error of answerable", calibration_error(sure, labels.astype(float))),
    ]


def _refusals(
    on_topic: Sequence[Outcome], off_topic: Sequence[Outcome], far: Sequence[Outcome]
) -> list[Row]:
    answerable = [one for one in on_topic if one.case.answers]
    unanswerable = [one for one in on_topic if not one.case.answers]
    together = [*answerable, *off_topic]
    return [
        _row("answerable, answered", 1 - _mean(one.refused for one in answerable)),
        _row("written to be unanswerable, refused", _mean(one.refused for one in unanswerable)),
        _row("its article taken away, refused", _mean(one.refused for one in off_topic)),
        _row(
            "AUROC answerable or article taken away",
            auroc(
                np.array([one.told.answerable for one in together]),
                np.array([bool(one.case.answers) for one in together]),
            ),
        ),
        _row("of another field, refused", _mean(one.refused for one in far)),
    ]


def _shifts(
    open_pool: Callable[[str], Pool],
    judge: Callable[[Sequence[Case]], list[Outcome]],
    options: Options,
    every: int,
) -> list[Row]:
    """Sets that nothing was fitted on."""
    assert options.data is not None
    rows = []
    for name, title in (
        ("beerqa_multihop", "BeerQA"),
        ("xquad/de", "XQuAD German"),
        ("xquad/zh", "XQuAD Chinese"),
    ):
        options.say(title)
        pool = open_pool(name)
        questions = read_rows(
            options.data / "qa" / name / "questions.jsonl.gz", every=max(every, 2)
        )
        found = judge(ask(pool, questions))
        pool.close()
        rows += [
            _row(f"{title}: answered", 1 - _mean(one.refused for one in found)),
            _row(
                f"{title}: any sentence told holds the answer",
                _mean(any(one.right) for one in found),
                peer=_mean(one.is_peer_right for one in found),
            ),
        ]
    options.say("PubMedQA")
    pool = open_pool("pubmedqa")
    questions = read_rows(options.data / "qa/pubmedqa/questions.jsonl.gz", every=max(every, 3))
    pool.warm([row["question"] for row in questions])
    found = judge([Case(row["question"], pool.search(row["question"])) for row in questions])
    pool.close()
    return [*rows, _row("PubMedQA: answered", 1 - _mean(one.refused for one in found))]


def _milliseconds(embedder: Embedder, cases: Sequence[Case]) -> list[float]:
    """Times with the bare embedder, after one question to warm it up."""
    answerer = engine.build(EngineContext(embedder))
    times = []
    for case in cases:
        started = time.perf_counter()
        answerer.select(Prompt(case.question, case.passages))
        times.append((time.perf_counter() - started) * 1e3)
    return times[1:] or times


def auroc(scores: Numbers, labels: NDArray[np.bool_]) -> float:
    """The chance that a positive scores above a negative; ties count half (Mann-Whitney)."""
    positive, negative = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).mean() / 2 / len(negative))


def aurc(scores: Numbers, right: Numbers) -> float:
    """The mean share of wrong answers over all shares answered, surest first (Geifman 2018)."""
    order = np.argsort(-scores, kind="stable")
    return float((np.cumsum(1 - right[order]) / np.arange(1, len(order) + 1)).mean())


def calibration_error(probabilities: Numbers, right: Numbers) -> float:
    """Mean distance of probability and frequency over bins of equal size."""
    order = np.argsort(probabilities, kind="stable")
    bins = [chunk for chunk in np.array_split(order, BINS) if len(chunk)]
    return float(
        sum(len(one) * abs(probabilities[one].mean() - right[one].mean()) for one in bins)
        / len(order)
    )


def _error_of_all(outcomes: Sequence[Outcome]) -> float:
    supports = [support for one in outcomes for support in sorted(one.told.supports, reverse=True)]
    right = [flag for one in outcomes for flag in one.right]
    return calibration_error(np.array(supports), np.array(right, dtype=float))


def _mean(values: object) -> float:
    found = [float(value) for value in values]  # type: ignore[attr-defined]
    return float(np.mean(found)) if found else float("nan")


def _row(
    metric: str, ours: float, *, peer: float | None = None, unit: str = "", note: str = ""
) -> Row:
    return Row(
        metric,
        Spread((ours,)),
        None if peer is None else Spread((peer,)),
        peer_name="" if peer is None else PEER,
        unit=unit,
        note=note,
    )
