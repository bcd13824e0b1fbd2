"""From a specification to its plan: base, pairs, split and negatives found, every problem told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from infra.datasets.datasets import KIND as DATASET
from infra.errors import RagstoneError
from infra.plugins import require
from training.lock import packages
from training.places import Places
from training.problems import Problem, Refused
from training.retrieval_models import base_model, batching, dividing
from training.retrieval_models.corpus import Corpus
from training.retrieval_models.dividing import Divided
from training.retrieval_models.mining import Example, Mined, mine
from training.retrieval_models.pairs import Pair, Reading
from training.retrieval_models.specification import EmbedderTuning, Evaluate, Tuning, kind_of
from training.row_source import Row, open_rows
from training.spec import as_json

EPOCHS = 3.0
"""Where the specification says neither epochs nor steps: questions of one collection are few."""
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a plan is made with."""

    places: Places
    open_corpus: Callable[[Tuning], Corpus]
    """Raises NotFound where there is no such collection."""
    needed: Callable[[Evaluate], Mapping[str, tuple[int, str]]]
    """By key of `evaluate`: how many questions its gates need for their power, and to see what."""
    feedback: Callable[[Tuning], Sequence[Row]] = lambda _: ()
    """Answers that were voted up, as rows."""
    told: Callable[[int, int], None] = lambda *_: None
    """Is told for how many questions negatives were mined, and of how many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tuning would be."""

    spec: Tuning
    base: base_model.Found | None
    divided: Divided
    mined: Mined
    lock: Mapping[str, Any]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    parents: tuple[tuple[str, str], ...] = ()
    """`(role, reference)` of what is named and is an artifact."""

    def require_sound(self) -> None:
        """Raise `Refused`, which names every problem, if there is any."""
        if self.problems:
            raise Refused(self.spec.name, self.problems)


@dataclass(slots=True)
class _Finding:
    problems: list[Problem] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    parents: list[tuple[str, str]] = field(default_factory=list)

    def find(self, key: str, look: Callable[[], Found]) -> Found | None:
        try:
            return look()
        except RagstoneError as error:
            self.problems.append(Problem("found", key, error.message))
            return None


def plan(spec: Tuning, around: Surroundings) -> Plan:
    """Find and check all that a specification names; no weight is loaded."""
    finding = _Finding()
    corpus = finding.find("data.collection", lambda: around.open_corpus(spec))
    default = corpus.model if corpus is not None and isinstance(spec, EmbedderTuning) else None
    base = None
    if spec.base.model is not None or corpus is not None:
        look = partial(base_model.find, spec.base, default, around.places, kind=kind_of(spec))
        base = finding.find("base.model", look)
    divided, mined = Divided((), (), {}), Mined((), 0, 0, 0)
    if corpus is not None:
        finding.digests["data.collection"] = corpus.digest
        divided = _divided(spec, around, corpus, finding)
        mined = _mined(spec, around, corpus, divided, finding)
    if base is not None:
        finding.digests["base.model"] = base.digest
        if base.is_artifact:
            finding.parents.append(("base", f"{base.name.partition('@')[0]}@{base.digest}"))
        finding.problems += _of_model(spec, base, corpus)
    finding.problems += _of_power(spec, around, divided)
    steps = _steps(spec, mined.examples)
    lock = _lock(spec, around, finding, divided=divided, mined=mined, steps=steps)
    notes = (*_notes(finding, base, mined), *_of_batches(spec, mined.examples))
    problems, parents = tuple(finding.problems), tuple(finding.parents)
    return Plan(spec, base, divided, mined, lock, problems, notes, parents)


def _divided(spec: Tuning, around: Surroundings, corpus: Corpus, finding: _Finding) -> Divided:
    given = _pairs("data.eval", spec, around, corpus, finding)
    pairs = [
        pair
        for key in ("data.train", "data.feedback")
        for pair in _pairs(key, spec, around, corpus, finding) or ()
    ]
    if given is None:
        found = dividing.divide(pairs, spec.data.held_out, seed=spec.seed)
    else:
        found = dividing.given(pairs, given)
        finding.problems += dividing.leaks(found)
    if pairs or given is not None:
        finding.problems += dividing.halves(found, is_given=given is not None)
    return found


def _pairs(
    key: str, spec: Tuning, around: Surroundings, corpus: Corpus, finding: _Finding
) -> list[Pair] | None:
    """Return the pairs of a source; None if the specification has none."""
    source = getattr(spec.data, key.partition(".")[2])
    if source is None:
        return None
    if key == "data.feedback":
        batches = finding.find(key, lambda: [list(around.feedback(spec))])
    else:
        places = around.places
        look = partial(open_rows, source, folder=places.folder, datasets=places.datasets)
        rows = finding.find(key, look)
        if rows is None:
            return []
        finding.digests[key] = rows.digest
        if rows.source.startswith(f"{DATASET}/"):
            finding.parents.append((key.partition(".")[2], rows.source))
        if source.digest not in {None, rows.digest}:
            what = f"{source.rows!r} is {rows.digest}, not {source.digest}"
            finding.problems.append(Problem("found", f"{key}.digest", what))
        batches = finding.find(key, lambda: list(rows.batches()))
    reading = Reading(key, spec.data.limits, corpus)
    pairs = finding.find(key, lambda: list(reading.read(batches or [])))
    if batches is not None and pairs is not None:
        finding.problems += reading.problems()
    finding.counts[f"{key} rows"] = reading.rows
    finding.counts[f"{key} left out"] = reading.left_out
    return pairs or []


def _mined(
    spec: Tuning, around: Surroundings, corpus: Corpus, divided: Divided, finding: _Finding
) -> Mined:
    rules = spec.negatives
    work = partial(mine, divided.train, corpus, rules, seed=spec.seed, told=around.told)
    found = finding.find("negatives", work) or Mined((), 0, 0, 0)
    if not divided.train:
        return found
    if rules.per_question and not found.given + found.mined + found.drawn:
        what = "no passage of the collection could be one: widen the window, or lower the margin"
        finding.problems.append(Problem("negatives", "negatives", what))
    elif len(found.examples) < spec.schedule.batch:
        what = (
            f"{spec.schedule.batch} questions of one step, and there are {len(found.examples)} "
            "to learn from"
        )
        finding.problems.append(Problem("batches", "schedule.batch", what))
    return found


def _of_model(spec: Tuning, base: base_model.Found, corpus: Corpus | None) -> list[Problem]:
    found = []
    reads = min(base.max_tokens, spec.base.max_tokens or base.max_tokens)
    if spec.base.max_tokens is not None and spec.base.max_tokens > base.max_tokens:
        what = f"{spec.base.max_tokens} tokens, and {base.name!r} reads {base.max_tokens}"
        found.append(Problem("model", "base.max_tokens", what))
    if isinstance(spec, EmbedderTuning):
        if corpus is not None and corpus.chunk_tokens > reads:
            what = (
                f"it reads {reads} tokens, and the chunks of {corpus.name!r} have up to "
                f"{corpus.chunk_tokens}: they would be cut; rebuild it with shorter ones first"
            )
            found.append(Problem("model", "base.max_tokens", what))
        too_long = [each for each in spec.matryoshka if base.dimension and each >= base.dimension]
        if too_long:
            what = f"{too_long[0]} is not shorter than the model's vectors, {base.dimension}"
            found.append(Problem("model", "matryoshka", what))
    return found


def _of_power(spec: Tuning, around: Surroundings, divided: Divided) -> list[Problem]:
    # What shares a document counts as one, or a hundred questions about one would do.
    count = len(set(divided.groups.values()))
    if not count:
        return []
    return [
        Problem(
            "power",
            f"evaluate.{key}",
            f"{count} questions without a document in common are held out, and {needed} are needed "
            f"to see {what}; hold out more, add rows, or raise it",
        )
        for key, (needed, what) in around.needed(spec.evaluate).items()
        if count < needed
    ]


def _steps(spec: Tuning, examples: Sequence[Example]) -> int:
    schedule = spec.schedule
    if schedule.steps is not None:
        return schedule.steps
    epochs = EPOCHS if schedule.epochs is None else schedule.epochs
    if isinstance(spec, EmbedderTuning):
        return batching.steps(examples, schedule.batch, epochs=epochs, seed=spec.seed)
    return max(1, math.ceil(epochs * len(examples) / schedule.batch))


def _of_batches(spec: Tuning, examples: Sequence[Example]) -> list[str]:
    """Return what is to be said where batches are smaller than asked for."""
    if not isinstance(spec, EmbedderTuning) or not examples:
        return []
    size = spec.schedule.batch
    found = sum(1 for _ in batching.of_epoch(examples, size, seed=spec.seed, epoch=0))
    if found <= math.ceil(len(examples) / size):
        return []
    return [
        f"an epoch has {found} batches of {len(examples) / found:.1f} questions on average, not "
        f"{size}: those whose passages answer each other are kept apart; more passages, or fewer "
        "negatives.per_question, make them larger"
    ]


def _lock(
    spec: Tuning,
    around: Surroundings,
    finding: _Finding,
    *,
    divided: Divided,
    mined: Mined,
    steps: int,
) -> dict[str, Any]:
    return {
        "kind": kind_of(spec),
        "name": spec.name,
        "spec": as_json(spec),
        "folder": str(around.places.folder.resolve()),
        "digests": dict(sorted(finding.digests.items())),
        "packages": packages("sentence-transformers"),
        "counts": {
            **{name: count for name, count in finding.counts.items() if count},
            "learned from": len(divided.train),
            "held out": len(divided.held_out),
            "groups held out": len(set(divided.groups.values())),
            "documents held out": len({d for pair in divided.held_out for d in pair.documents}),
            "examples": len(mined.examples),
            "negatives given": mined.given,
            "negatives mined": mined.mined,
            "negatives drawn": mined.drawn,
        },
        "batches": {"rows_per_step": spec.schedule.batch, "steps": steps},
    }


def _notes(finding: _Finding, base: base_model.Found | None, mined: Mined) -> list[str]:
    notes = []
    if base is not None and mined.examples:
        path = base.folder / "tokenizer.json"
        if path.is_file():
            tokenizer = require("tokenizers", extra="embed").Tokenizer.from_file(str(path))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            texts = sorted({each.positive for each in mined.examples})
            longer = sum(len(each.ids) > base.max_tokens for each in tokenizer.encode_batch(texts))
            if longer:
                notes.append(
                    f"{longer} of {len(texts)} passages are longer than the {base.max_tokens} "
                    "tokens that the model reads, and are cut"
                )
    if mined.drawn > mined.mined + mined.given:
        notes.append(
            f"{mined.drawn} of {mined.drawn + mined.mined + mined.given} negatives are passages of "
            "other questions, because too few are in the window of negatives and below the "
            "positive; negatives.margin: null takes those above it too"
        )
    left_out = sum(count for name, count in finding.counts.items() if name.endswith("left out"))
    if left_out:
        notes.append(
            f"{left_out} rows are left out: nobody has accepted them, or no answer is known"
        )
    return notes
