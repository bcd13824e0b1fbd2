"""What a training process tells becomes events, checkpoints and figures of its job, once each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from infra.database.fine_tuning_tables import fine_tuning_checkpoint as checkpoint
from infra.database.fine_tuning_tables import fine_tuning_event as event
from infra.errors import StorageFailed
from infra.security import new_id
from service.fine_tuning.records import FineTuningJobs, Said
from training import progress_file

MOST_METRICS = 1_000
"""Events with the metrics of a step, of one run; of longer ones, some steps are left out."""
FAILED_CODE, SERVER_CODE = "training_failed", "server_error"
REFUSED = (
    ("data.train", "training_file", "invalid_training_file"),
    ("data.eval", "validation_file", "invalid_validation_file"),
    ("base", "model", "invalid_model"),
    ("method", "method", "invalid_method"),
    ("schedule", "hyperparameters", "invalid_hyperparameters"),
)
"""By the beginning of a key of the specification: the parameter and the code of OpenAI's."""


class Telling:
    """Takes over what the process of one job told, from where it was left.

    Args:
        jobs: where the job is written down.
        job_id: of the job.
        guard: raises if another attempt at the job is in force.
    """

    def __init__(
        self, jobs: FineTuningJobs, job_id: str, *, guard: Callable[[Connection], None]
    ) -> None:
        self._jobs = jobs
        self._id = job_id
        self._guard = guard

    def begin(self, path: Path) -> None:
        """Start from the beginning if the file is gone, before a process writes another."""
        if self._jobs.get(self._id).told_bytes and not path.exists():
            with self._jobs.database.write() as connection:
                self._guard(connection)
                self._jobs.change(connection, self._id, told_bytes=0)

    def take(self, path: Path, checkpoints: Path) -> None:
        """Read on in the process's file, and look at its folder of checkpoints."""
        while self._take_events(path):
            pass
        self._take_checkpoints(checkpoints)

    def _take_events(self, path: Path) -> bool:
        job = self._jobs.get(self._id)
        found, offset = progress_file.read(path, job.told_bytes)
        if offset == job.told_bytes:
            return False
        values: dict[str, Any] = {"told_bytes": offset}
        said: list[Said] = []
        for each in found:
            steps = values.get("steps", job.steps)
            said += _said(each, every=_every(steps))
            values |= _values(each)
        with self._jobs.database.write() as connection:
            self._guard(connection)
            if not self._jobs.change(connection, self._id, **values):
                return False
            self._jobs.say(connection, self._id, *said)
        return True

    def _take_checkpoints(self, folder: Path) -> None:
        from training import checkpoints

        there = {checkpoints.step_of(seal.parent) for seal in folder.glob(f"*/{checkpoints.SEAL}")}
        with self._jobs.database.read() as connection:
            known = set(
                connection.scalars(
                    select(checkpoint.c.step).where(checkpoint.c.fine_tuning_job_id == self._id)
                )
            )
        if there == known:
            return
        steps = self._jobs.get(self._id).steps
        with self._jobs.database.write() as connection:
            self._guard(connection)
            if not self._jobs.change(connection, self._id, steps=steps):
                return  # it was cancelled, and nothing more is told of it
            connection.execute(
                delete(checkpoint).where(
                    checkpoint.c.fine_tuning_job_id == self._id, checkpoint.c.step.not_in(there)
                )
            )
            for step in sorted(there - known):
                self._add_checkpoint(connection, step)

    def _add_checkpoint(self, connection: Connection, step: int) -> None:
        connection.execute(
            insert(checkpoint).values(
                id=new_id("ftckpt-"),
                fine_tuning_job_id=self._id,
                step=step,
                metrics=_metrics_at(metrics_of(connection, self._id), step),
                created_at=datetime.now(UTC),
            )
        )
        self._jobs.say(connection, self._id, Said(f"Checkpoint created at step {step}"))


def metrics_of(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """Return what was told of the steps of a job, in order; of each step what was told last."""
    rows = connection.scalars(
        select(event.c.data)
        .where(event.c.fine_tuning_job_id == job_id, event.c.type == "metrics")
        .order_by(event.c.number)
    )
    by_step: dict[int, dict[str, Any]] = {}
    for data in rows:
        known = by_step.get(data["step"], {})
        by_step[data["step"]] = known | {
            name: value for name, value in data.items() if value is not None
        }
    return [by_step[step] for step in sorted(by_step)]


def failure(problems: Iterable[dict[str, str]]) -> dict[str, Any]:
    """Return the error of a job that was refused, which holds all of its problems."""
    found = list(problems)
    code, parameter = "invalid_request", None
    for beginning, known, name in REFUSED:
        if found and found[0]["where"].startswith(beginning):
            code, parameter = name, known
            break
    message = "\n".join(_line(each) for each in found)
    return {"code": code, "message": message, "param": parameter}


def _line(problem: dict[str, str]) -> str:
    return f"{problem['where']}: {problem['what']}"


def _every(steps: int | None) -> int:
    return math.ceil((steps or 1) / MOST_METRICS)


def _said(told: dict[str, Any], *, every: int) -> list[Said]:
    kind = told["event"]
    if kind == "planned":
        sources = sorted(told["lengths"].items(), key=lambda each: each[0] != "data.train")
        rows = ", ".join(f"{lengths['kept']:,} rows of {key}" for key, lengths in sources)
        return [Said(f"Files validated: {rows}"), Said("Fine-tuning job started")]
    if kind == "note":
        return [Said(told["message"])]
    if kind == "step":
        step, steps = told["step"], told["steps"]
        return [_metrics(told)] if step % every == 0 or step == steps else []
    if kind == "evaluated":
        return [_metrics(told)]
    if kind == "refused":
        return [Said(_line(each), "error") for each in told["problems"]]
    if kind == "failed":
        return [Said(told["message"], "error")]
    return []


def _metrics(told: dict[str, Any]) -> Said:
    loss, held_out = _finite(told["loss"]), _finite(told.get("held_out_loss"))
    message = f"Step {told['step']}/{told['steps']}: training loss={told['loss']:.4g}"
    if held_out is not None:
        message += f", validation loss={held_out:.4g}"
    data = {
        "step": told["step"],
        "total_steps": told["steps"],
        "train_loss": loss,
        "valid_loss": held_out,
        "train_mean_token_accuracy": _finite(told["accuracy"]),
    }
    return Said(message, data={name: value for name, value in data.items() if value is not None})


def _values(told: dict[str, Any]) -> dict[str, Any]:
    """Return what an event says of how the job stands."""
    kind = told["event"]
    if kind == "planned":
        return {"status": "running", "steps": told["steps"]}
    if kind == "step":
        left = timedelta(seconds=_finite(told["seconds_left"]) or 0.0)
        found: dict[str, Any] = {"estimated_finish": datetime.now(UTC) + left}
        tokens = _finite(told["tokens"])
        return found if tokens is None else {**found, "trained_tokens": int(tokens)}
    if kind == "refused":
        return {"error": failure(told["problems"])}
    if kind == "failed":
        # What is not the training's fault can be gone on with once it is mended.
        code = SERVER_CODE if told["kind"] == StorageFailed.__name__ else FAILED_CODE
        return {"error": {"code": code, "message": told["message"], "param": None}}
    return {}


def _metrics_at(metrics: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Return what was told of a step, or of the last one before it that was told of."""
    before = [each for each in metrics if each["step"] <= step]
    return {**before[-1], "step": step} if before else {"step": step}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
