"""Model kept fresh: form a dataset, train a challenger, hold it against the champion, decide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import classical
from infra.artifacts.store import ArtifactStore
from infra.datasets.datasets import Datasets
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from training import classical as models
from training import retrained
from training import spec as specifications
from training.classical import Around
from training.retrained import Judge, Kind, Question, Result
from training.sentinel import Aborted
from training.tabular import forming, reading
from training.tabular.forming import Formed
from training.tabular.open_views import OpenViews
from training.tabular.opened import Opened, open_model
from training.tabular.retraining import CANDIDATE, Retraining
from training.tabular.specification import Classical, Register, TableSource

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a challenger has to stand against."""

    champion: Opened | None
    earlier: tuple[Opened, ...]
    """Champions, this one first, on whose held-out rows it is asked."""
    staged: str | None = None
    """What the alias `promotion.to` points at, by its digest."""

    @property
    def digest(self) -> str | None:
        return None if self.champion is None else self.champion.reference.digest


def read(path: Path) -> Retraining:
    """Return what a YAML file asks for. Raises as `training.classical.read` does."""
    return parse(specifications.load(path), source=repr(str(path)))


def parse(values: Any, *, source: str = "the specification") -> Retraining:
    """Check values that came from outside. Raises `InvalidSpecification`, with every problem."""
    return specifications.check(Retraining, values, source=source)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a specification, for editors."""
    return specifications.schema_of(Retraining)


def retrain(
    asked: Retraining,
    around: Around,
    judge: Judge,
    *,
    cause: Mapping[str, Any] | None = None,
) -> Result:
    """Train a challenger on what came in, and let it take over if it is surely better.

    The champion is what the alias points at. A challenger is compared with it on the latest rows,
    which neither was trained on, and on what earlier versions were measured on, so that it does not
    forget. Where labels are missing nothing is promoted without a person. With `promotion.to` it is
    not promoted but put where it is compared in production.

    Args:
        asked: the specification.
        around: stores, tracking, who is told.
        judge: gates.
        cause: what started it, such as an alarm of drift; kept with the evidence, of which the
            artifact that its `evidence` names is a parent.

    Raises:
        InvalidConfiguration: there is no artifact store.
        InvalidRequest, NotFound: rows or specification are not what they should be.
        Conflict: the alias moved meanwhile; nothing was promoted, and the evidence says so.
    """
    store = around.store
    if store is None:
        raise InvalidConfiguration("A retraining needs an artifact store, and there is none here")
    spec = models.read(around.folder / Path(asked.spec).expanduser())
    rows = reading.read(asked.log.source, folder=around.folder, datasets=Datasets(store))
    formed = forming.form(
        rows.frame, asked, target=spec.data.target, now=around.clock(), seed=spec.seed
    )
    around.note(f"formed {formed.counts.trained_on:,} rows to train on of {formed.counts.rows:,}")
    with (
        retrained.tracked(asked, around.tracker, cause) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        views = OpenViews(folder=around.folder, datasets=Datasets(store))
        inside = replace(around, parent=None if run is None else run.id, views=views)
        standing = _standing(store, asked, Path(scratch), views)
        formed = _apart(formed, standing)
        challenger = _challenge(asked, spec, formed, inside, folder=Path(scratch))
        result = _decide(asked, formed, standing, challenger, judge)
        aliases = retrained.Aliases(classical.KIND, standing.digest, standing.staged)
        result = retrained.settle(store, run, asked, aliases, result, cause=cause)
        around.note(f"{result.decision}: {'; '.join(result.reasons)}")
        return result


def _challenge(
    asked: Retraining, spec: Classical, formed: Formed, around: Around, *, folder: Path
) -> Opened | str:
    """Return the challenger, or why there is none."""
    assert around.store is not None
    name = f"dataset/{asked.name}-retraining"
    reference = Datasets(around.store).put({"train": formed.train, "test": formed.compare}, name)
    pinned = reference.pinned
    log = asked.log
    apart = [each for each in (log.key, log.labelled_at) if each and each != spec.data.group]
    columns = formed.train.columns
    has_time = spec.data.time in columns or spec.data.is_joined
    left_out = [each for each in (*spec.data.leave_out, *apart) if each in columns]
    data = spec.data.model_copy(
        update={
            "train": TableSource(rows=pinned, split="train"),
            "test": TableSource(rows=pinned, split="test"),
            "time": spec.data.time if has_time else log.time,
            "leave_out": tuple(dict.fromkeys(left_out)),
        }
    )
    given = spec.model_copy(
        update={"data": data, "register_as": Register(name=asked.name, alias=CANDIDATE)}
    )
    try:
        trained = models.train(given, folder / "run", around)
    except Aborted as error:
        return error.message
    return open_model(around.store, trained.model, folder / "challenger", views=around.views)


def _decide(
    asked: Retraining,
    formed: Formed,
    standing: _Standing,
    challenger: Opened | str,
    judge: Judge,
) -> Result:
    champion = standing.champion
    before = None if champion is None else str(champion.reference)
    result = Result("refused", (), before, None, (), formed.as_values(), "", None)
    if isinstance(challenger, str):
        return replace(result, reasons=(challenger,))
    result = replace(result, challenger=str(challenger.reference))
    if champion is not None:
        asking = list(_questions(asked, formed, standing, champion, challenger))
        result = replace(result, answers=tuple(judge(asking)))
    failed = [f"{each.name}: {each.reason}" for each in result.answers if not each.passed]
    if failed:
        return replace(result, reasons=tuple(failed))
    waiting = _why_wait(asked, formed, standing)
    if waiting:
        return replace(result, decision="withheld", reasons=tuple(waiting))
    if champion is not None and asked.promotion.to is not None:
        said = f"it is surely better; as {asked.promotion.to!r} it is compared in production"
        return replace(result, decision="staged", reasons=(said,))
    said = "it is surely better, and forgets nothing" if champion else "there was no champion"
    return replace(result, decision="promoted", reasons=(said,))


def _why_wait(asked: Retraining, formed: Formed, standing: _Standing) -> list[str]:
    found = []
    if standing.digest is not None and standing.staged not in {None, standing.digest}:
        found.append(
            f"{asked.promotion.to!r} points at {standing.staged!r}, which is still compared with "
            "the champion"
        )
    if formed.counts.share < asked.labels.min_share:
        found.append(
            f"{formed.counts.share:.0%} of the rows old enough have a label, and labels.min_share "
            f"is {asked.labels.min_share:.0%}; those that are missing may be of another kind, so a "
            "person has to promote it"
        )
    if formed.counts.compared < asked.labels.min_rows:
        found.append(
            f"{formed.counts.compared} rows are there to compare on, and labels.min_rows is "
            f"{asked.labels.min_rows}"
        )
    if not asked.promotion.automatic:
        found.append("promotion.automatic is off; a person has to promote it")
    return found


def _questions(
    asked: Retraining,
    formed: Formed,
    standing: _Standing,
    champion: Opened,
    challenger: Opened,
) -> Iterator[Question]:
    """Yield what is asked: on the latest rows, then on what earlier versions were measured on."""
    limits, task = asked.promotion, champion.file.task
    if challenger.file.task != task:
        raise InvalidRequest(
            f"{str(champion.reference)!r} is of {task}, the challenger of {challenger.file.task}"
        )

    def question(name: str, kind: Kind, limit: float, rows: pl.DataFrame) -> Question:
        both = champion.losses(rows), challenger.losses(rows)
        return Question(name, kind, limit, *both, is_wrong_or_right=task == "classification")

    yield question("latest rows", "superior", limits.min_gain, formed.compare)
    for each in standing.earlier:
        name = f"held out by v{each.reference.version}"
        yield question(name, "non_inferior", limits.max_loss, each.held_out)


def _standing(
    store: ArtifactStore, asked: Retraining, scratch: Path, views: OpenViews
) -> _Standing:
    """Open the champion, and the champions before it, the latest first."""
    name = f"{classical.KIND}/{asked.name}"
    try:
        found = store.find(f"{name}@{asked.alias}")
    except NotFound:
        return _Standing(None, ())
    champion = open_model(store, str(found), scratch / "champion", views=views)
    versions = [each.reference for each in store.versions(name)]
    numbers = {each.digest: each.version for each in versions}
    digests = dict.fromkeys(
        [found.digest, *(each.after for each in store.history(name, asked.alias))]
    )
    living = [each for each in digests if each in numbers][: asked.promotion.earlier]
    opened = [
        champion
        if digest == found.digest
        else open_model(
            store, f"{name}@v{numbers[digest]}", scratch / f"v{numbers[digest]}", views=views
        )
        for digest in living
    ]
    staged = None
    if asked.promotion.to is not None:
        with suppress(NotFound):
            staged = store.find(f"{name}@{asked.promotion.to}").digest
    return _Standing(champion, tuple(opened), staged)


def _apart(formed: Formed, standing: _Standing) -> Formed:
    """Leave out of the training what earlier versions were measured on, and will be again."""
    train = formed.train
    for each in standing.earlier:
        train = each.others(train)
    counts = replace(formed.counts, trained_on=len(train), set_aside=len(formed.train) - len(train))
    return replace(formed, train=train, counts=counts)
