"""SciFact's test questions before and after `train embedder` on its training questions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import judged
from benchmarks.judged import Judged
from benchmarks.options import Options
from benchmarks.retrieval_quality import (
    HEAD,
    MEASURES,
    OURS,
    SCIFACT_BAR,
    SYSTEMS,
    VECTORS,
    Values,
    ask,
    difference,
    evaluate,
)
from benchmarks.table import Row, Spread
from infra.errors import NotFound
from infra.expectations import yaml_text
from infra.settings import load_settings
from retrieval.collections import Collection
from service import retrieval_tuning
from service.wiring import Components
from training.retrieval_models.specification import read
from training.retrieval_models.tuning import Outcome, tune

NAME = "scifact"
COMPARED = ("BM25", "dense", "RRF", OURS)
MEASURE = str(MEASURES[0])
HELD_OUT = 0.25
SCHEDULE = {"epochs": 1, "batch": 32, "learning_rate": 1e-4}
QUICK_SCHEDULE = {"steps": 2, "batch": 2, "learning_rate": 1e-2}
"""Nothing is learned from so little, but vectors move, which shows that the new build answers."""
NEGATIVES = {"per_question": 1, "first_rank": 2, "last_rank": 50, "margin": 0.05}
QUICK_NEGATIVES = {"per_question": 1}
QUICK_DOCUMENTS = 10
QUICK_QUESTIONS = 8


@dataclass(frozen=True, slots=True)
class Tuned:
    """How a tuning ended, and what it took."""

    outcome: Outcome
    seconds: float
    processor_seconds: float
    """Of all threads: mining, training, the gate with all passages embedded anew."""


def run(options: Options) -> list[Row]:
    """Fill SciFact, ask its test questions, tune on its training questions, build, ask again.

    Raises:
        NotFound: there is no folder of judged collections.
    """
    if options.data is None:
        raise NotFound("folder of judged collections", "RAGSTONE_TEST_DATA")
    test, training = _questions(options.data, quick=options.quick)
    parts = Components(load_settings(data_folder=options.folder / "data"))
    try:
        whole = _fill(parts, test, options)
        options.say(f"{len(test.questions)} test questions")
        before = _values(parts, whole, test)
        tuned = _tune(parts, training, options)
        whole = _rolled_out(parts, whole, tuned.outcome, options)
        after = _values(parts, whole, test)
    finally:
        parts.close()
    return [*_costs(tuned), *_gates(tuned.outcome), *_rows(before, after, quick=options.quick)]


def _questions(data: Path, *, quick: bool) -> tuple[Judged, Judged]:
    """Return test and training questions over the same documents."""
    test, training = judged.load(NAME, data), judged.load(NAME, data, split="train")
    if not quick:
        return test, training
    sizes = {"documents": QUICK_DOCUMENTS, "questions": QUICK_QUESTIONS}
    test, training = judged.quick(test, **sizes), judged.quick(training, **sizes)
    documents = tuple({each.id: each for each in test.documents + training.documents}.values())
    both = partial(Judged, NAME, documents)
    return both(test.questions, test.judgements), both(training.questions, training.judgements)


def _fill(parts: Components, collection: Judged, options: Options) -> Collection:
    cuts = judged.cut(collection, parts)
    texts = judged.texts(cuts)
    options.say(f"embedding {len(texts):,} chunks")
    folder = options.folder / "vectors" if options.quick else VECTORS
    vectors = judged.stored_vectors(parts.embedder, texts, folder)
    return judged.fill(parts, collection, cuts, vectors=vectors)


def _values(parts: Components, whole: Collection, test: Judged) -> Mapping[str, Values]:
    found = {}
    for system in COMPARED:
        head = ask(parts, whole, test, limit=HEAD, **SYSTEMS[system])
        found[system] = evaluate(test, head, head)
    return found


def _tune(parts: Components, training: Judged, options: Options) -> Tuned:
    """Do what `ragstone train embedder` does with a file of rows and a specification."""
    _write_rows(options.folder / "questions.jsonl", training)
    path = options.folder / "spec.yaml"
    path.write_text(yaml_text.write(_specification(quick=options.quick)), encoding="utf-8")
    around = retrieval_tuning.around(parts, options.folder, note=options.say)
    started, processor = time.perf_counter(), time.process_time()
    outcome = tune(read(path, "embedder"), options.folder / "run", around)
    return Tuned(outcome, time.perf_counter() - started, time.process_time() - processor)


def _write_rows(path: Path, training: Judged) -> None:
    rows = [
        {
            "question": text,
            "relevant": {
                f"{NAME}:{document}": grade
                for document, grade in training.judgements[question].items()
            },
        }
        for question, text in training.questions.items()
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _specification(*, quick: bool) -> dict[str, object]:
    return {
        "version": 1,
        "name": f"{NAME}-embedder",
        "data": {
            "collection": NAME,
            "train": {"rows": "questions.jsonl"},
            "held_out": 0.5 if quick else HELD_OUT,
        },
        "negatives": QUICK_NEGATIVES if quick else NEGATIVES,
        "schedule": QUICK_SCHEDULE if quick else SCHEDULE,
        # A slice has a handful of questions: it shows the way, and its gate lets everything be.
        "evaluate": {"expected_gain": 1.0, "margin": 0.9} if quick else {},
    }


def _rolled_out(
    parts: Components, whole: Collection, outcome: Outcome, options: Options
) -> Collection:
    """Build the collection with the tuned model, and let the new build answer."""
    options.say("embedding everything with the tuned model")
    recipe = parts.recipe(
        embedder=whole.recipe.embedder,
        embedder_options={**(whole.recipe.embedder_options or {}), "model": outcome.model},
    )
    begun = parts.builds.start(whole, recipe)
    for _ in parts.builder.fill(whole, begun):
        pass
    parts.builds.swap(whole)
    return parts.collections.get(whole.name)


def _costs(tuned: Tuned) -> Iterator[Row]:
    steps, verdict = tuned.outcome.steps, tuned.outcome.verdict
    note = f"{steps} steps; verdict of the gate: {verdict}"
    yield Row("tuning, all threads", Spread((tuned.processor_seconds / 60,)), unit="min", note=note)
    yield Row("tuning, by the clock", Spread((tuned.seconds / 60,)), unit="min")


def _gates(outcome: Outcome) -> Iterator[Row]:
    for gate in outcome.gates:
        yield Row(
            f"training questions held out: {gate['metric']}",
            Spread((100 * gate["after"],)),
            Spread((100 * gate["before"],)),
            "before",
            note=f"{gate['questions']} questions: {gate['verdict']}",
        )


def _rows(
    before: Mapping[str, Values], after: Mapping[str, Values], *, quick: bool
) -> Iterator[Row]:
    for system in COMPARED:
        for measure in (MEASURE, str(MEASURES[2])):
            ours, theirs = after[system][measure], before[system][measure]
            yield Row(
                f"test questions: {measure} of {system}",
                Spread((float(ours.mean()),)),
                Spread((float(theirs.mean()),)),
                "before",
                note=difference([ours - theirs]),
                bar=None if quick or system != OURS or measure != MEASURE else SCIFACT_BAR,
            )
    for system in COMPARED[:-1]:
        ours, theirs = after[OURS][MEASURE], after[system][MEASURE]
        yield Row(
            f"test questions, tuned: {MEASURE} of {OURS}",
            Spread((float(ours.mean()),)),
            Spread((float(theirs.mean()),)),
            system,
            note=difference([ours - theirs]),
        )
