"""Retrains classical models, as a command or a job, on a log or on what they were asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import classical
from infra.errors import InvalidConfiguration, InvalidRequest
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry
from infra.plugins import require
from infra.point_in_time import moments_of
from monitoring import prediction_logs

if TYPE_CHECKING:
    import polars as pl

    from infra.classical import Column, ModelFile
    from monitoring.prediction_logs import LoggedRow
    from service.wiring import Components
    from training.retrained import Result
    from training.tabular.retraining import Retraining
    from training.tabular.searching import Progress

RETRAIN = "retrain"
MOST_ROWS = 2_000_000
"""Of what a model was asked, that are read into memory."""
_TYPES = {"float64": "Float64", "int64": "Int64", "string": "String", "bool": "Boolean"}
"""Of polars, by those of columns."""


def define(registered: Registry, parts: Components) -> None:
    """Register the job that retrains a model; a monitor's trigger or a schedule starts it."""

    # Not over HTTP: the file that it names says what is read.
    @registered.job(RETRAIN, behaviour=Behaviour(steps=False, lane=RETRAIN))
    def retrain(attempt: Attempt, *, spec: str, evidence: str | None = None) -> dict[str, Any]:
        from training.retrained import described

        del attempt
        if not Path(spec).is_absolute():
            raise InvalidRequest(f"{spec!r} means another file in every folder; name all of it")
        result = run(parts, Path(spec), cause={"evidence": evidence} if evidence else None)
        return described(result)


def run(
    parts: Components,
    file: Path,
    *,
    cause: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda _: None,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Carry out the retraining that a YAML file asks for.

    Raises:
        NotFound, InvalidRequest: as `training.retrain`; or nothing is kept of what was asked.
        InvalidConfiguration: nobody compares what `promotion.to` would point at.
        Conflict: an alias moved meanwhile.
    """
    from service.models import model_gates, model_training
    from training import retrain

    asked = retrain.read(file)
    _check_alias(parts, asked)
    if (evidence := (cause or {}).get("evidence")) is not None:
        parts.artifacts.find(evidence)
    if asked.log.rows is None:
        rows, time = _put_log(parts, asked)
        note(f"what {asked.name!r} was asked is {rows}")
        log = asked.log.model_copy(update={"rows": rows, "time": time})
        asked = asked.model_copy(update={"log": log})
    around = model_training.around(parts, file.absolute().parent, note=note, tell=tell)
    return retrain.retrain(asked, around, model_gates.judge, cause=cause)


def _check_alias(parts: Components, asked: Retraining) -> None:
    to, options = asked.promotion.to, parts.settings.models
    if to is None:
        return
    compared = options.challengers.get(asked.name)
    if compared is None or (asked.alias, to) != (options.alias, compared.alias):
        raise InvalidConfiguration(
            f"promotion.to: nobody compares {to!r} of {asked.name!r} with {asked.alias!r}; set "
            f"models.challengers.{asked.name}.alias and models.alias to these two"
        )


def _put_log(parts: Components, asked: Retraining) -> tuple[str, str]:
    """Store what the model was asked, with labels, as a dataset.

    Returns its version, and its column of times: of a model with feature views the one by which
    they are joined.
    """
    from infra.datasets.datasets import Datasets
    from service.prediction.loading import described

    model = f"{classical.KIND}/{asked.name}"
    file = described(parts.artifacts, f"{model}@{asked.alias}")
    time = file.time if file.views and file.time else asked.log.time
    if time in {file.target, *(each.name for each in file.inputs)}:
        raise InvalidRequest(f"log.time: {time!r} is a column of {model!r} already")
    parts.interactions.flush()
    _check_size(parts, asked, model)
    batches = prediction_logs.read(parts.database, model, most=MOST_ROWS)
    if file.views:
        batches = ([row for row in rows if row.keys is not None] for rows in batches)
    tables = [_as_table(rows, file, time=time) for rows in batches if rows]
    if not tables:
        what = "No keys and times are" if file.views else "Nothing is"
        raise InvalidRequest(
            f'{what} kept of what {model!r} was asked; set models.keep = "inputs", or '
            "name rows in log.rows"
        )
    polars = require("polars", extra="classical")
    table = polars.concat(tables, how="vertical_relaxed")  # a batch may have no label at all
    stored = Datasets(parts.artifacts).put(table, f"dataset/{asked.name}-predictions")
    return stored.pinned, time


def _check_size(parts: Components, asked: Retraining, model: str) -> None:
    """Refuse more rows than are read, unless the latest are those that are meant."""
    if asked.formation.method == "rolling":
        return
    if (rows := prediction_logs.count(parts.database, model)) > MOST_ROWS:
        raise InvalidRequest(
            f"formation.method: {asked.formation.method!r} wants all {rows:,} rows that {model!r} "
            f"was asked, and {MOST_ROWS:,} can be read; take 'rolling', which reads the latest, "
            "keep fewer with telemetry.keep_days, or name rows in log.rows"
        )


def _as_table(rows: Sequence[LoggedRow], file: ModelFile, *, time: str) -> pl.DataFrame:
    """Return rows by the names and types of the training; a label that is none is missing.

    What comes from a view is left out: it is joined again, by key and time.
    """
    polars = require("polars", extra="classical")
    columns = [
        polars.Series(
            each.name,
            [_raw(row.features.get(each.name), each) for row in rows],
            dtype=getattr(polars, _TYPES[each.type]),
            strict=False,
        )
        for each in file.inputs
        if each.name not in file.joined
    ]
    columns += [
        polars.Series(name, [(row.keys or {}).get(name) for row in rows], strict=False, dtype=kind)
        for name, kind in _key_types(file).items()
    ]
    labels = [_label(row.label, file) for row in rows]
    found: pl.DataFrame = polars.DataFrame(
        [*columns, polars.Series(file.target, labels, strict=False), _times(rows, file, time)]
    )
    return found


def _key_types(file: ModelFile) -> dict[str, Any]:
    polars = require("polars", extra="classical")
    own = {each.name for each in file.inputs} - file.joined
    keys = {view.asked_key: view.key_type for view in file.views}
    return {name: getattr(polars, _TYPES[kind]) for name, kind in keys.items() if name not in own}


def _times(rows: Sequence[LoggedRow], file: ModelFile, name: str) -> pl.Series:
    polars = require("polars", extra="classical")
    found: pl.Series
    if not file.views:
        found = polars.Series(name, [row.at for row in rows])
        return found
    said = [(row.keys or {}).get(name) for row in rows]
    moments = moments_of(said, source=f"The column {name!r}")
    zone = "UTC" if any(view.is_zoned for view in file.views) else None
    found = polars.Series(name, moments.microseconds, dtype=polars.Datetime("us", zone))
    return found


def _raw(value: Any, column: Column) -> Any:
    """Return a value as the data have it: categories are kept as text, whatever they are there."""
    if not isinstance(value, str) or column.type == "string":
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def _label(said: str | None, file: ModelFile) -> Any:
    if said is None:
        return None
    if file.classes is None:
        return _number(said)
    known = {classical.text_of(each): each for each in file.classes}
    is_text = all(isinstance(each, str) for each in file.classes)
    return said if is_text else known.get(said)


def _number(said: str) -> float | None:
    try:
        found = float(said)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
