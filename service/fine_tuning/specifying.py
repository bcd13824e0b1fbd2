"""From what a client asks for to the specification that is trained by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidConfiguration, InvalidRequest
from infra.fine_tuning_settings import Tunable
from service.fine_tuning.records import artifact_of

if TYPE_CHECKING:
    from training.spec import FineTuning

METHODS = {"supervised": "sft", "dpo": "dpo"}
EPOCHS = 3
ROWS_PER_STEP = 8
LEARNING_RATES = {"sft": 2e-4, "dpo": 2e-5}
"""What a multiplier multiplies, where the settings of the model do not say."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What decides the specification, of what was asked for; None is left to us."""

    method: str
    """`supervised` or `dpo`."""
    seed: int
    train: str
    """A path, or a dataset of the store."""
    held_out: str | None = None
    epochs: int | None = None
    rows_per_step: int | None = None
    multiplier: float | None = None
    beta: float | None = None
    max_rank: int | None = None
    """That the server takes which is to host the adapter; None if none is known."""


def specify(job_id: str, name: str, tunable: Tunable, wanted: Wanted) -> FineTuning:
    """Return the specification of a job on a model of the settings.

    Raises:
        InvalidRequest: the learning rate that was asked for is none.
        InvalidConfiguration: what the settings say of the model is wrong.
    """
    from training.spec import InvalidSpecification, parse

    method = METHODS[wanted.method]
    values = _merged(tunable.options, _fixed(job_id, tunable, wanted))
    schedule = values.setdefault("schedule", {})
    if wanted.epochs is not None or not schedule.keys() & {"epochs", "steps"}:
        schedule.pop("steps", None)
        schedule["epochs"] = wanted.epochs or EPOCHS
    if wanted.rows_per_step is not None or not schedule.keys() & {
        "rows_per_step",
        "tokens_per_step",
    }:
        schedule.pop("tokens_per_step", None)
        schedule["rows_per_step"] = wanted.rows_per_step or ROWS_PER_STEP
    rate = schedule.get("learning_rate", LEARNING_RATES[method])
    schedule["learning_rate"] = rate * (wanted.multiplier or 1.0)
    if schedule["learning_rate"] > 1:
        raise InvalidRequest(
            f"learning_rate_multiplier {wanted.multiplier!r} makes a learning rate of "
            f"{schedule['learning_rate']:g}, which is above 1",
            parameter="hyperparameters.learning_rate_multiplier",
        )
    try:
        return parse(values, source=f"fine_tuning.models.{name}")
    except InvalidSpecification as error:
        raise InvalidConfiguration(error.message) from error


def _fixed(job_id: str, tunable: Tunable, wanted: Wanted) -> dict[str, Any]:
    """Return what the settings' options cannot change."""
    values: dict[str, Any] = {
        "version": 1,
        "name": artifact_of(job_id),
        "seed": wanted.seed,
        "base": {"model": tunable.model, "digest": tunable.digest, "template": tunable.template},
        "data": {"train": {"rows": wanted.train}},
        "method": {"type": METHODS[wanted.method]},
        "runtime": {"device": tunable.device},
        "register": {"name": artifact_of(job_id), "alias": None},
    }
    if wanted.held_out is not None:
        values["data"]["eval"] = {"rows": wanted.held_out}
    if wanted.beta is not None:
        values["method"]["beta"] = wanted.beta
    if wanted.max_rank is not None:
        values["serve"] = {"max_rank": wanted.max_rank}
    return values


def hyperparameters(spec: FineTuning, wanted: Wanted) -> dict[str, Any]:
    """Return what a client is told that its job is carried out with."""
    schedule = spec.schedule
    epochs = schedule.epochs
    told: dict[str, Any] = {
        "n_epochs": "auto" if epochs is None else max(1, round(epochs)),
        "batch_size": schedule.rows_per_step or "auto",
        "learning_rate_multiplier": wanted.multiplier or 1.0,
    }
    if spec.method.type == "dpo":
        told["beta"] = spec.method.beta
    return told


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, `other` where they differ; below a key that is a table in both as well."""
    merged = dict(one)
    for key, value in other.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(known, value)
        else:
            merged[key] = value
    return {
        key: _merged(value, {}) if isinstance(value, Mapping) else value
        for key, value in merged.items()
    }
