"""Adapter kept fresh: learn what people corrected, replay old rows, ask earlier suites, decide."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from infra.artifacts.store import ArtifactStore
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from training import finetune, retrained, row_losses
from training import spec as specifications
from training.finetune import Around, Outcome
from training.registration import KIND
from training.retrained import Judge, Question, Result
from training.row_source import open_rows
from training.sentinel import Aborted
from training.spec import FineTuning, as_json
from training.specification.continual import CANDIDATE, Continual
from training.specification.data import Source

LATEST = "latest rows"
HELD_OUT, TRAIN = "held_out", "train"
"""Roles of datasets in the evidence."""
MOST_ROWS = 200_000
"""Of a source, that are read into memory."""
KEPT = ("messages", "tools")
"""Of a row."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Formed:
    """What is trained and compared on, as stored datasets."""

    train: str
    held_out: str
    compared: list[Row]
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a challenger has to stand against."""

    champion: str | None
    digest: str | None
    suites: Mapping[str, list[Row]]
    """By name, rows that are asked again."""
    staged: str | None = None
    """What the alias `promotion.to` points at, by its digest."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What is asked for, and with what."""

    asked: Continual
    spec: FineTuning
    around: Around
    store: ArtifactStore
    folder: Path
    """For what is of no use afterwards."""


def read(path: Path) -> Continual:
    """Return what a YAML file asks for. Raises as `training.spec.read` does."""
    return parse(specifications.load(path), source=repr(str(path)))


def parse(values: Any, *, source: str = "the specification") -> Continual:
    """Check values that came from outside. Raises `InvalidSpecification`, with every problem."""
    return specifications.check(Continual, values, source=source)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a specification, for editors."""
    return specifications.schema_of(Continual)


def fine_tuning(asked: Continual, folder: Path) -> FineTuning:
    """Return the specification by which an adapter is trained; its path is taken from `folder`.

    Raises:
        NotFound, InvalidSpecification: as `training.spec.read`.
        InvalidRequest: a retraining cannot do what it says.
    """
    spec = specifications.read(folder / Path(asked.spec).expanduser())
    if spec.method.type != "sft":
        raise InvalidRequest(
            f"{asked.spec!r} learns by {spec.method.type!r}; of answers as they should have been, "
            "method 'sft' does"
        )
    if spec.parallelism.world > 1:
        raise InvalidRequest(
            f"{asked.spec!r} is of {spec.parallelism.world} processes, and a retraining is one"
        )
    return spec


def retrain(
    asked: Continual,
    said: Sequence[Row] | None,
    around: Around,
    judge: Judge,
    *,
    cause: Mapping[str, Any] | None = None,
) -> Result:
    """Train a challenger on what people said, and let it take over if it is surely better.

    It is trained by the fine-tuning's own specification, on what was said before the latest rows
    and on older rows that are replayed. On the latest rows its loss has to be surely lower than the
    champion's; on every earlier suite it must not be higher, so that it does not forget.

    Args:
        asked: the specification.
        said: rows of messages, the latest last; None where the specification names them.
        around: stores, tracking, who is told; paths are taken from the folder of its places.
        judge: gates.
        cause: what started it; kept with the evidence.

    Raises:
        InvalidConfiguration: there is no artifact store.
        InvalidRequest, NotFound: rows or specification are not what they should be.
        Conflict: the alias moved meanwhile; nothing was promoted, and the evidence says so.
    """
    store, folder = around.places.store, around.places.folder
    if store is None:
        raise InvalidConfiguration("A retraining needs an artifact store, and there is none here")
    spec = fine_tuning(asked, folder)
    if asked.log.rows is not None:
        said = _read(asked.log.rows, around)
    standing = _standing(store, asked, around)
    formed = _form(asked, said or (), standing, around, seed=spec.seed)
    around.note(f"formed {formed.rows['train']} rows to train on of {formed.rows['said']}")
    with (
        retrained.tracked(asked, around.tracker, cause) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        task = _Task(asked, spec, around, store, Path(scratch))
        result = _decide(task, formed, standing, _challenge(task, formed), judge)
        aliases = retrained.Aliases(KIND, standing.digest, standing.staged)
        result = retrained.settle(store, run, asked, aliases, result, cause=cause)
        around.note(f"{result.decision}: {'; '.join(result.reasons)}")
        return result


def _read(source: Source, around: Around) -> list[Row]:
    """Return the rows of a source, those that cannot be read left out.

    Raises:
        NotFound: there is no such file, dataset or split.
        InvalidRequest: they hold no `messages`, or there are more than are read.
    """
    places, rows = around.places, []
    for batch in open_rows(source, folder=places.folder, datasets=places.datasets).batches():
        rows += [
            {key: each[key] for key in KEPT if each.get(key) is not None}
            for each in batch
            if _has_messages(each)
        ]
        if len(rows) > MOST_ROWS:
            raise InvalidRequest(f"{source.rows!r} holds more than {MOST_ROWS:,} rows")
    if not rows:
        raise InvalidRequest(f"{source.rows!r} holds no rows of 'messages'")
    return rows


def _has_messages(row: Any) -> TypeGuard[Row]:
    messages = row.get("messages") if isinstance(row, dict) else None
    return isinstance(messages, list) and all(isinstance(each, dict) for each in messages)


def _key(row: Row) -> str:
    """Return what was asked, by which rows are the same whatever the answer is."""
    asked = [(each.get("role"), each.get("content")) for each in row["messages"][:-1]]
    return json.dumps(asked, ensure_ascii=False).casefold()


def _standing(store: ArtifactStore, asked: Continual, around: Around) -> _Standing:
    name = f"{KIND}/{asked.name}"
    suites = {each.rows: _read(each, around) for each in asked.suites}
    try:
        found = store.find(f"{name}@{asked.alias}")
    except NotFound:
        return _Standing(None, None, suites)
    digests = [found.digest, *(each.after for each in store.history(name, asked.alias))]
    for evidence, held_out in _earlier(store, asked, digests):
        suites[f"compared by {evidence}"] = _read(Source(rows=held_out), around)
    staged = None
    if asked.promotion.to is not None:
        with suppress(NotFound):
            staged = store.find(f"{name}@{asked.promotion.to}").digest
    return _Standing(str(found), found.digest, suites, staged)


def _earlier(
    store: ArtifactStore, asked: Continual, digests: Sequence[str | None]
) -> Iterator[tuple[str, str]]:
    """Yield the retrainings whose challenger took over, latest first, and what each compared on."""
    left = asked.promotion.earlier
    name = f"{retrained.EVIDENCE_KIND}/{asked.name}"
    versions = store.versions(name) if _is_known(store, asked.name) else []
    for each in sorted(versions, key=lambda one: one.reference.version or 0, reverse=True):
        if not left:
            return
        with store.open(str(each.reference), retrained.EVIDENCE) as file:
            told = json.load(file)
        held_out = (told.get("data") or {}).get(HELD_OUT)
        if held_out and told["decision"] in {"promoted", "staged"}:
            with suppress(NotFound):  # it was deleted
                if store.find(told["challenger"]).digest in digests:
                    yield str(each.reference), held_out
                    left -= 1


def _is_known(store: ArtifactStore, name: str) -> bool:
    return any(each.name == name for each in store.names(retrained.EVIDENCE_KIND))


def _form(
    asked: Continual, said: Sequence[Row], standing: _Standing, around: Around, *, seed: int
) -> _Formed:
    """Keep the latest apart, draw what is replayed, and store both as datasets.

    Of rows that ask the same the latest counts, and none is trained on that is asked again.
    """
    latest = list({_key(row): row for row in reversed(said)}.values())[::-1]
    compared = latest[len(latest) - round(asked.formation.compare * len(latest)) :]
    known = {_key(row) for rows in standing.suites.values() for row in rows}
    apart = known | {_key(row) for row in compared}
    fresh = [row for row in latest if _key(row) not in apart]
    if not fresh or not compared:
        raise InvalidRequest(
            f"{len(said)} rows were said to be right, of which {len(fresh)} are left to train on "
            f"and {len(compared)} to compare on; wait for more"
        )
    replayed: list[Row] = []
    for place, source in enumerate(asked.replay):
        taken = apart | {_key(row) for row in (*fresh, *replayed)}
        old = [row for row in _read(source, around) if _key(row) not in taken]
        wanted = min(len(old), round(source.ratio * len(fresh)))
        replayed += random.Random(f"{seed}/{place}").sample(old, wanted)
    assert around.places.datasets is not None
    datasets = around.places.datasets
    train = datasets.put(iter([*fresh, *replayed]), f"dataset/{asked.name}-retraining")
    held_out = datasets.put(iter(compared), f"dataset/{asked.name}-held-out")
    counts = {
        "said": len(said),
        "train": len(fresh),
        "replayed": len(replayed),
        "compared": len(compared),
        "asked_again": len(known),
    }
    return _Formed(train.pinned, held_out.pinned, compared, counts)


def _challenge(task: _Task, formed: _Formed) -> Outcome | str:
    """Return the challenger, or why there is none."""
    values = as_json(task.spec)
    values["data"] |= {"train": {"rows": formed.train}, "eval": None, "replay": []}
    values["register"] = {"name": task.asked.name, "alias": CANDIDATE}
    given = specifications.parse(values, source=repr(task.asked.spec))
    try:
        return finetune.finetune(given, task.folder / "run", task.around)
    except Aborted as error:
        return error.message


def _decide(
    task: _Task, formed: _Formed, standing: _Standing, trained: Outcome | str, judge: Judge
) -> Result:
    data = {TRAIN: formed.train, HELD_OUT: formed.held_out}
    result = Result("refused", (), standing.champion, None, (), formed.rows, "", None, data)
    if isinstance(trained, str):
        return replace(result, reasons=(trained,))
    result = replace(result, challenger=trained.adapter)
    answers = tuple(judge(list(_questions(task, formed, standing, trained.adapter))))
    result = replace(result, answers=answers)
    failed = [f"{each.name}: {each.reason}" for each in answers if not each.passed]
    if failed:
        return replace(result, reasons=tuple(failed))
    waiting = tuple(_why_wait(task.asked, formed, standing))
    if waiting:
        return replace(result, decision="withheld", reasons=waiting)
    if standing.champion is not None and task.asked.promotion.to is not None:
        said = f"it is surely better; as {task.asked.promotion.to!r} it waits to be compared"
        return replace(result, decision="staged", reasons=(said,))
    said = "it is surely better, and forgets nothing"
    return replace(result, decision="promoted", reasons=(said,))


def _questions(
    task: _Task, formed: _Formed, standing: _Standing, challenger: str
) -> Iterator[Question]:
    """Yield what is asked: on the latest rows, then on every earlier suite."""
    limits = task.asked.promotion
    new = task.store.checkout(challenger, task.folder / "challenger")
    old = None
    if standing.champion is not None:
        old = task.store.checkout(standing.champion, task.folder / "champion")
    suites = {LATEST: formed.compared, **standing.suites}
    before, after = row_losses.losses(task.spec, task.around.places, [old, new], suites)
    for name in suites:
        is_latest = name == LATEST
        yield Question(
            name,
            "superior" if is_latest else "non_inferior",
            limits.min_gain if is_latest else limits.max_loss,
            before[name],
            after[name],
            is_wrong_or_right=False,
            bounds=row_losses.BOUNDS,
        )


def _why_wait(asked: Continual, formed: _Formed, standing: _Standing) -> Iterator[str]:
    if standing.digest is not None and standing.staged not in {None, standing.digest}:
        yield (
            f"{asked.promotion.to!r} points at {standing.staged!r}, which is still compared with "
            "the champion"
        )
    if len(formed.compared) < asked.formation.min_rows:
        yield (
            f"{len(formed.compared)} rows are there to compare on, and formation.min_rows is "
            f"{asked.formation.min_rows}"
        )
    if not asked.promotion.automatic:
        yield "promotion.automatic is off; a person has to promote it"
