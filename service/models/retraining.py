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
        rows = _put_log(parts, asked)
        note(f"what {asked.name!r} was asked is {rows}")
        asked = asked.model_copy(update={"log": asked.log.model_copy(update={"rows": rows})})
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


def _put_log(parts: Components, asked: Retraining) -> str:
    """Store what the model was asked, with labels, as a dataset; returns its version."""
    from infra.datasets.datasets import Datasets
    from service.prediction.loading import described

    model = f"{classical.KIND}/{asked.name}"
    file = described(parts.artifacts, f"{model}@{asked.alias}")
    if file.views:
        raise InvalidRequest(
            f"{model!r} joins feature views; name rows with their keys and times in log.rows"
        )
    if asked.log.time in {file.target, *(each.name for each in file.inputs)}:
        raise InvalidRequest(f"log.time: {asked.log.time!r} is a column of {model!r} already")
    parts.interactions.flush()
    _check_size(parts, asked, model)
    batches = prediction_logs.read(parts.database, model, most=MOST_ROWS)
    tables = [_as_table(rows, file, time=asked.log.time) for rows in batches]
    if not tables:
        raise InvalidRequest(
            f'Nothing is kept of what {model!r} was asked; set models.keep = "inputs", or name '
            "rows in log.rows"
        )
    polars = require("polars", extra="classical")
    table = polars.concat(tables, how="vertical_relaxed")  # a batch may have no label at all
    stored = Datasets(parts.artifacts).put(table, f"dataset/{asked.name}-predictions")
    return stored.pinned


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
    """Return rows by the names and types of the training; a label that is none is missing."""
    polars = require("polars", extra="classical")
    columns = [
        polars.Series(
            each.name,
            [_raw(row.features.get(each.name), each) for row in rows],
            dtype=getattr(polars, _TYPES[each.type]),
            strict=False,
        )
        for each in file.inputs
    ]
    labels = [_label(row.label, file) for row in rows]
    moments = polars.Series(time, [row.at for row in rows])
    found: pl.DataFrame = polars.DataFrame(
        [*columns, polars.Series(file.target, labels, strict=False), moments]
    )
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
