"""Classical model in: read, check, divide, explore, search, fit, measure, write, register."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra import classical
from infra.artifacts.publishing import Made
from infra.artifacts.store import ArtifactStore
from infra.datasets.datasets import Datasets
from infra.errors import InvalidConfiguration
from infra.tracking.handle import Run
from infra.tracking.tracker import Tracker
from training import spec as specifications
from training.sentinel import Aborted
from training.tabular import (
    artifact,
    card,
    deciding,
    evaluation,
    exploring,
    feast,
    fitting,
    importance,
    joining,
    pipelines,
    reading,
    scoring,
    searching,
)
from training.tabular.evaluation import Errors, Said
from training.tabular.exploring import Exploration
from training.tabular.joining import Joined
from training.tabular.open_views import OpenView, OpenViews
from training.tabular.preparation import Material, prepare
from training.tabular.reading import Rows
from training.tabular.searching import Found, Progress
from training.tabular.specification import Classical

RUN_KIND = "classical"
DRAFT, MODEL = "model.part", "model"


@dataclass(frozen=True, slots=True)
class Around:
    """What a training uses of the process it is in."""

    folder: Path
    """Paths of the specification are taken from here."""
    store: ArtifactStore | None = None
    tracker: Tracker | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    tell: Callable[[Progress], None] = lambda _: None
    """Is told of each trial."""
    note: Callable[[str], None] = lambda _: None
    """Is told what is done, in words."""
    diagnose: Callable[[Errors], Mapping[str, Any]] | None = None
    """Says where the error comes from: JSON's values, of which `summary` is a sentence."""
    page: Callable[[Exploration], bytes] | None = None
    """Writes an exploration as one HTML file."""
    parent: str | None = None
    """The tracked run that this one is part of."""
    views: OpenViews | None = None
    """That are open already, for all models of a retraining; by default those of this one are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended that ended well."""

    model: str
    """The version in the store, or the folder of a model that was not to be registered."""
    digest: str | None
    format: str
    estimator: str
    parameters: Mapping[str, Any]
    metric: str
    in_folds: float
    held_out: Mapping[str, float]
    constant: Mapping[str, float]
    thresholds: Mapping[str, float] | None
    parity: Mapping[str, Any] | None
    rows: Mapping[str, int]
    warnings: tuple[str, ...]
    diagnosis: str | None
    run: str | None
    """Its id among the tracked runs."""
    joined: tuple[Joined, ...] = ()
    """How many rows have no values of a view."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sources:
    rows: Rows
    test: Rows | None
    views: tuple[OpenView, ...]
    joined: tuple[Joined, ...]

    @property
    def roles(self) -> list[tuple[str, Rows]]:
        """What a model is made from, by its role."""
        found = [("train", self.rows)] + ([] if self.test is None else [("test", self.test)])
        return found + [("features", each.rows) for each in self.views]


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    pipeline: Any
    found: Found
    thresholds: Mapping[str, float] | None
    said: Said
    figures: dict[str, Any]
    views: tuple[OpenView, ...] = ()


def read(path: Path) -> Classical:
    """Return what a YAML file asks for.

    Raises:
        NotFound: there is no such file.
        InvalidRequest, TooLarge: it is no specification; every problem is named with its key.
    """
    return parse(specifications.load(path), source=repr(str(path)))


def parse(values: Any, *, source: str = "the specification") -> Classical:
    """Check values that came from outside. Raises `InvalidSpecification` as `read` does."""
    return specifications.check(Classical, values, source=source)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a specification, for editors."""
    return specifications.schema_of(Classical)


def train(spec: Classical, folder: Path, around: Around) -> Outcome:
    """Train as specified; a constant and a linear model are tried before all others.

    Args:
        spec: what is asked for.
        folder: of this run alone; what an earlier one left there is replaced.
        around: stores, tracking, who is told.

    Raises:
        InvalidRequest, NotFound: the specification cannot be carried out on these rows.
        Conflict: a required expectation fails; nothing was trained.
        Aborted: no model is better than a constant by `accept.min_gain`; nothing is registered.
        StorageFailed: the store is full or out of reach.
    """
    spec = feast.resolved(spec, folder=around.folder, store=around.store, note=around.note)
    sources = _read(spec, around)
    rows, test = sources.rows, sources.test
    around.note(f"read {len(rows.frame):,} rows of {rows.name}")
    for joined in sources.joined:
        around.note(str(joined))
    material = prepare(spec, rows.frame, None if test is None else test.frame)
    explored = exploring.explore(
        material.raw_train, name=rows.name, target=spec.data.target, task=spec.task, seed=spec.seed
    )
    warnings = _warnings(explored, material)
    for each in warnings:
        around.note(f"look at this: {each}")
    with _tracked(spec, around, sources) as run:
        fitted = replace(_fit(spec, material, around), views=sources.views)
        fitted.figures["joined"] = [asdict(each) for each in sources.joined]
        draft = folder / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        written = _write(draft, spec, material, fitted, warnings=warnings, around=around)
        if around.page is not None:
            (draft / artifact.REPORT).write_bytes(around.page(explored))
        place = folder / MODEL
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        said = [*warnings, *([written.warning] if written.warning else [])]
        outcome = _outcome(place, material, fitted, written, warnings=said, run=run)
        outcome = replace(outcome, joined=sources.joined)
        _log(run, outcome)
        return _register(spec, outcome, around, sources, run=run)


def _read(spec: Classical, around: Around) -> _Sources:
    datasets = None if around.store is None else Datasets(around.store)
    found = [
        None if source is None else reading.read(source, folder=around.folder, datasets=datasets)
        for source in (spec.data.train, spec.data.test)
    ]
    for rows in found:
        if rows is not None:
            reading.check(rows, spec.data.expectations, folder=around.folder, now=around.clock())
    shared = around.views or OpenViews(folder=around.folder, datasets=datasets)
    views = shared.open(spec.data.features)
    (rows, test), joined = joining.join_all(found, views, spec.data)
    assert rows is not None
    return _Sources(rows, test, views, tuple(joined))


def _warnings(explored: Exploration, material: Material) -> list[str]:
    given = {each.name for each in material.chosen.columns}
    found = [
        str(each) for each in exploring.leaks(explored) if each.column in {*given, explored.target}
    ]
    found += [f"{name!r} is left out: it {why}" for name, why in material.chosen.left_out.items()]
    return found


def _fit(spec: Classical, material: Material, around: Around) -> _Fitted:
    columns, table = material.chosen.columns, material.train
    found = searching.search(table, spec, columns, tell=around.tell)
    best = found.best
    around.note(
        f"{best.estimator} is best: {spec.metric} {best.score:.4g} in the folds, a constant "
        f"{found.baseline.score:.4g}"
    )
    chosen_by_nested = searching.nested(table, spec, columns) if spec.search.nested else ()
    pipeline = pipelines.build(spec, columns, best.estimator, best.parameters)
    fitting.fit(pipeline, table, spec)
    thresholds = _thresholds(spec, material, found)
    said = evaluation.ask(pipeline, material)
    figures = evaluation.evaluate(spec, material, found, said)
    if thresholds is not None:
        figures["threshold"] = asdict(thresholds)
    figures["nested"] = list(chosen_by_nested)
    chosen = None if thresholds is None else thresholds.thresholds
    fitted = _Fitted(pipeline, found, chosen, said, figures)
    _refuse_useless(spec, fitted)
    return fitted


def _thresholds(spec: Classical, material: Material, found: Found) -> deciding.Chosen | None:
    asked, table = spec.imbalance.threshold, material.train
    if asked is None or table.classes is None:
        return None
    return deciding.choose(
        table.truth, found.best.said, table.classes, asked, weights=table.weights
    )


def _refuse_useless(spec: Classical, fitted: _Fitted) -> None:
    figures, metric = fitted.figures, spec.metric
    gained = scoring.gain(metric, figures["test"][metric], figures["constant"][metric])
    if not gained > spec.accept.min_gain:
        raise Aborted(
            f"On the rows held out {fitted.found.best.estimator} has a {metric} of "
            f"{figures['test'][metric]:.4g}, and a constant {figures['constant'][metric]:.4g}; "
            f"accept.min_gain is {spec.accept.min_gain:g}, so nothing is registered"
        )


def _write(
    folder: Path,
    spec: Classical,
    material: Material,
    fitted: _Fitted,
    *,
    warnings: Sequence[str],
    around: Around,
) -> artifact.Written:
    written = artifact.write_model(
        folder, fitted.pipeline, material, spec, thresholds=fitted.thresholds, views=fitted.views
    )
    if written.warning is not None:
        around.note(f"look at this: {written.warning}")
    important = importance.measure(fitted.pipeline, material.test, spec.metric, seed=spec.seed)
    figures = fitted.figures
    figures["parity"] = artifact.as_values(written.parity)
    figures["importance"] = [asdict(each) for each in important]
    if around.diagnose is not None:
        losses = evaluation.errors(
            spec,
            material,
            fitted.said,
            out_of_fold=fitted.found.best.said,
            model=written.model,
        )
        figures["diagnosis"] = dict(around.diagnose(losses))
    figures["warnings"] = list(warnings)
    artifact.write_json(folder / artifact.EVALUATION, figures)
    artifact.write_reference(folder, material, written.model, fitted.said.held_out)
    text = card.write(spec, written.model, figures, important=important, warnings=warnings)
    (folder / artifact.CARD).write_text(text, encoding="utf-8")
    return written


def _outcome(
    place: Path,
    material: Material,
    fitted: _Fitted,
    written: artifact.Written,
    *,
    warnings: Sequence[str],
    run: Run | None,
) -> Outcome:
    figures, best = fitted.figures, fitted.found.best
    diagnosis = figures.get("diagnosis")
    return Outcome(
        model=str(place),
        digest=None,
        format=written.model.format,
        estimator=best.estimator,
        parameters=dict(best.parameters),
        metric=figures["metric"],
        in_folds=best.score,
        held_out=figures["test"],
        constant=figures["constant"],
        thresholds=fitted.thresholds,
        parity=artifact.as_values(written.parity),
        rows=material.counts,
        warnings=tuple(warnings),
        diagnosis=None if diagnosis is None else str(diagnosis["summary"]),
        run=None if run is None else run.id,
    )


def _log(run: Run | None, outcome: Outcome) -> None:
    if run is None:
        return
    figures = {f"test/{name}": value for name, value in outcome.held_out.items()}
    figures |= {f"constant/{name}": value for name, value in outcome.constant.items()}
    run.log({**figures, f"folds/{outcome.metric}": outcome.in_folds})
    run.tag({"estimator": outcome.estimator, "format": outcome.format})


def _register(
    spec: Classical,
    outcome: Outcome,
    around: Around,
    sources: _Sources,
    *,
    run: Run | None,
) -> Outcome:
    asked = spec.register_as
    if asked is None:
        return outcome
    if around.store is None:
        raise InvalidConfiguration("register: there is no artifact store here")
    parents = tuple((role, each.name) for role, each in sources.roles if each.is_stored)
    facts = {
        "spec": spec.digest,
        "task": spec.task,
        "target": spec.data.target,
        "format": outcome.format,
        "estimator": outcome.estimator,
        "held_out": artifact.finite(outcome.held_out),
        "data": [each.digest for _, each in sources.roles],
    }
    made = Made(metadata=facts, parents=parents, job=outcome.run)
    reference = around.store.put(Path(outcome.model), f"{classical.KIND}/{asked.name}", made)
    if asked.alias is not None:
        around.store.tag(str(reference), asked.alias, actor=outcome.run)
    if run is not None:
        run.made(str(reference), role="model", digest=reference.digest)
    around.note(f"registered {reference}")
    return replace(outcome, model=str(reference), digest=reference.digest)


@contextmanager
def _tracked(spec: Classical, around: Around, sources: _Sources) -> Iterator[Run | None]:
    if around.tracker is None:
        yield None
        return
    parameters = spec.model_dump(mode="json", by_alias=True)
    with around.tracker.run(
        RUN_KIND, name=spec.name, parameters=parameters, parent=around.parent
    ) as run:
        for role, each in sources.roles:
            run.use(each.name, role=role, digest=each.digest)
        yield run
