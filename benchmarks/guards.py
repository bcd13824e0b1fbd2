"""The guards: injections found and false alarms on held-out texts, personal data by kind, time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.extractive import auroc
from benchmarks.injection_data import (
    Texts,
    long_questions_to_test,
    passages_to_test,
    questions_to_test,
    read_rows,
)
from benchmarks.injection_fit import heads
from benchmarks.options import Options
from benchmarks.table import Row, Spread
from infra.expectations.recognizers import find
from service.guards import Kind, Screen, open_screen
from service.guards.heuristic import Heuristic

Numbers = NDArray[np.float64]

THRESHOLD = 0.5
RESAMPLES = 1_000
SEED = 7
TIMED = 200
PERSONAL: Mapping[str, str] = {
    "email": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER",
    "card": "CREDIT_CARD",
    "iban": "IBAN_CODE",
    "ip": "IP_ADDRESS",
    "ssn": "US_SSN",
}
"""Our kinds beside the labels of Presidio's synthetic set."""


def run(options: Options) -> list[Row]:
    """Measure the shipped screen and recognizers on texts that had no part in their making."""
    if options.data is None:
        return [Row("injections found", None, note="needs the shared datasets")]
    screen = open_screen("heuristic")
    asked = questions_to_test(options.data)
    long = long_questions_to_test(options.data)
    found = passages_to_test(options.data)
    if options.quick:
        asked, long = _fewer(asked), _fewer(long)
        found = {name: _fewer(texts) for name, texts in found.items()}
    options.say(f"{len(asked.bad)} injections and {len(asked.good)} harmless questions")
    rows = _rates("questions", screen, asked, kind="question")
    rows += _rates("questions behind paragraphs", screen, long, kind="question")
    if not options.quick:
        options.say("the same with weights that were fitted without rows of that source")
        apart = Heuristic(heads(options.data, with_deepset=False))
        whole = questions_to_test(options.data, every_row=True)
        rows += _rates("questions, source left out", apart, whole, kind="question")
    for name, texts in found.items():
        rows += _rates(name, screen, texts, kind="passage")
    rows += _personal(options.data)
    passages = found["paragraphs, middle"]
    return [
        *rows,
        _time("time for a question", screen, asked.good[:TIMED], kind="question"),
        _time("time for a passage", screen, passages.good[:TIMED], kind="passage"),
    ]


def _fewer(texts: Texts) -> Texts:
    return Texts(texts.bad[::8], texts.good[::8])


def _rates(name: str, screen: Screen, texts: Texts, *, kind: Kind) -> list[Row]:
    bad = np.array(screen.score(texts.bad, kind=kind))
    good = np.array(screen.score(texts.good, kind=kind))
    scores = np.concatenate([bad, good])
    labels = np.concatenate([np.ones(len(bad), bool), np.zeros(len(good), bool)])
    sizes = f"{len(bad)} injections, {len(good)} harmless"

    def area(at: NDArray[np.intp]) -> float:
        return auroc(scores[at], labels[at])

    return [
        _interval(f"{name}: found", bad >= THRESHOLD, note=sizes),
        _interval(f"{name}: false alarms", good >= THRESHOLD),
        Row(f"{name}: precision", Spread((_precision(scores >= THRESHOLD, labels),))),
        Row(f"{name}: AUROC", Spread(_resampled(area, len(scores)))),
    ]


def _precision(flagged: NDArray[np.bool_], labels: NDArray[np.bool_]) -> float:
    return float(labels[flagged].mean()) if flagged.any() else float("nan")


def _interval(metric: str, hits: NDArray[np.bool_], *, note: str = "") -> Row:
    """A share with its 95 % interval (Wilson 1927) as smallest and largest."""
    total, share, z = len(hits), float(hits.mean()), 1.96
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    samples = (max(0.0, float(middle - half)), share, min(1.0, float(middle + half)))
    return Row(metric, Spread(samples), note=note)


def _resampled(figure: Callable[[NDArray[np.intp]], float], size: int) -> tuple[float, ...]:
    """The figure with the ends of its 95 % bootstrap interval."""
    draw = np.random.default_rng(SEED)
    drawn = np.array([figure(draw.integers(0, size, size)) for _ in range(RESAMPLES)])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), figure(np.arange(size)), float(high)


def _personal(data: Path) -> list[Row]:
    """A finding is right where it touches a labelled span of its kind."""
    rows = read_rows(data / "guardrails" / "pii.jsonl.gz")
    said: dict[str, list[bool]] = defaultdict(list)
    held: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        _compare(row, said, held)
    figures = []
    for kind, label in PERSONAL.items():
        note = f"{len(held[kind])} labelled, {len(said[kind])} found"
        figures.append(_interval(f"{label}: recall", np.array(held[kind]), note=note))
        if said[kind]:
            figures.append(_interval(f"{label}: precision", np.array(said[kind])))
    return figures


def _compare(
    row: Mapping[str, Any], said: Mapping[str, list[bool]], held: Mapping[str, list[bool]]
) -> None:
    found = find(row["text"])
    for kind, label in PERSONAL.items():
        ours = [(one.start, one.end) for one in found if one.kind == kind]
        theirs = [(one["start"], one["end"]) for one in row["spans"] if one["type"] == label]
        said[kind].extend(_touches(span, theirs) for span in ours)
        held[kind].extend(_touches(span, ours) for span in theirs)


def _touches(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


def _time(metric: str, screen: Screen, texts: Sequence[str], *, kind: Kind) -> Row:
    samples = []
    for text in texts:
        started = time.perf_counter()
        screen.score([text], kind=kind)
        samples.append((time.perf_counter() - started) * 1e3)
    return Row(metric, Spread(tuple(samples)), unit="ms")
