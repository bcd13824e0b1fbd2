"""What comes out of a fine-tuning: adapters of its checkpoints, a table of figures, models."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert

from infra.artifacts.publishing import Made
from infra.contracts import Access
from infra.database.fine_tuning_tables import tuned_model
from infra.errors import Conflict
from retrieval.files import doom_unreferenced
from service.fine_tuning.records import FineTuningJob, FineTuningJobs, Said
from service.fine_tuning.telling import metrics_of

if TYPE_CHECKING:
    from service.wiring import Components

KIND = "adapter"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
RESULTS = "step_metrics.csv"
PURPOSE = "fine-tune-results"
STEP = "-step-"
"""Between the name of a job's adapter and the step, in the name of a checkpoint's."""
COLUMNS = ("step", "train_loss", "train_mean_token_accuracy", "valid_loss")


@dataclass(frozen=True, slots=True)
class Published:
    """What is in the stores, and no client knows of yet."""

    job: FineTuningJob
    adapter: str
    """A reference to a version."""
    checkpoints: dict[int, str]
    """By step, references to the adapters of checkpoints before the last one."""


def store_metrics(
    parts: Components, job: FineTuningJob, *, guard: Callable[[Connection], None]
) -> None:
    """Write what was told of the steps as a file of the client's, and its id on the job.

    A file of an earlier attempt goes, and so does this one if the job was cancelled.
    """
    with parts.database.read() as connection:
        metrics: list[dict[str, Any]] = metrics_of(connection, job.id)
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(metrics)
    access = None if job.tenant is None else Access(job.tenant)
    files = parts.files.seen_by(access)
    made = files.add(RESULTS, [text.getvalue().encode()], purpose=PURPOSE).id
    with parts.database.write() as connection:
        guard(connection)
        is_kept = FineTuningJobs(parts.database).change(connection, job.id, result_files=[made])
        doom_unreferenced(connection, job.result_files if is_kept else [made])


def publish(parts: Components, job: FineTuningJob, run: Path) -> Published:
    """Store what a run wrote.

    Raises:
        Conflict: the run ended without an outcome.
        StorageFailed: a store is full or out of reach.
    """
    from training.run_folder import RunFolder

    files = RunFolder(run)
    outcome = files.outcome()
    if outcome is None:
        raise Conflict(f"The run of {job.id!r} ended well and wrote no outcome in {str(run)!r}")
    return Published(
        job,
        str(outcome["adapter"]),
        _store_checkpoints(parts, job, files.checkpoints, str(outcome["adapter"])),
    )


def succeed(connection: Connection, jobs: FineTuningJobs, made: Published) -> None:
    """Tell that a job has succeeded, and have its models served, unless it was cancelled."""
    job, now = made.job, datetime.now(UTC)
    values = {"status": "succeeded", "finished_at": now, "error": None, "paused": False}
    if not jobs.change(connection, job.id, **values):
        return
    models = {job.checkpoint_name(step): each for step, each in sorted(made.checkpoints.items())}
    for name, adapter in {**models, job.model_name: made.adapter}.items():  # the newest is the last
        connection.execute(
            insert(tuned_model).values(
                name=name,
                base=job.asked.model,
                tenant=job.tenant,
                adapter=adapter,
                fine_tuning_job_id=job.id,
                created_at=now,
            )
        )
    jobs.say(
        connection,
        job.id,
        *(Said(f"Checkpoint can be asked as {name}") for name in models),
        Said(f"New fine-tuned model created: {job.model_name}"),
        Said("The job has successfully completed"),
    )


def discard(parts: Components, job: FineTuningJob) -> None:
    """Remove the figures and adapters that the runs of a job stored without a success."""
    with parts.database.write() as connection:
        doom_unreferenced(connection, job.result_files)
    parts.files.sweep()
    for newest in parts.artifacts.names(KIND):
        if newest.name == job.artifact or newest.name.startswith(f"{job.artifact}{STEP}"):
            for each in parts.artifacts.versions(f"{KIND}/{newest.name}"):
                parts.artifacts.expire(str(each.reference))


def _store_checkpoints(
    parts: Components, job: FineTuningJob, folder: Path, adapter: str
) -> dict[int, str]:
    """Store the adapters of whole checkpoints; that of the last step is the model itself."""
    from training import checkpoints
    from training.registration import name_base

    parents = _parents(parts, job, adapter)
    with parts.artifacts.open(adapter, ADAPTER_FILES[0]) as file:
        base = _base_name(file.read())
    stored = {}
    for seal in sorted(folder.glob(f"*/{checkpoints.SEAL}")):
        step = checkpoints.step_of(seal.parent)
        is_last = job.steps is not None and step >= job.steps
        if is_last or not all((seal.parent / name).is_file() for name in ADAPTER_FILES):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            for name in ADAPTER_FILES:
                shutil.copyfile(seal.parent / name, Path(scratch) / name)
            name_base(Path(scratch), base)
            made = Made({"step": step, "job": job.id}, parents, job.id)
            reference = parts.artifacts.put(
                Path(scratch), f"{KIND}/{job.artifact}{STEP}{step}", made
            )
        stored[step] = str(reference)
    return stored


def _parents(parts: Components, job: FineTuningJob, adapter: str) -> list[tuple[str, str]]:
    """Return the base that an adapter was made from, if that is an artifact."""
    name = str(job.specification["base"]["model"]).partition("@")[0]
    parents = parts.artifacts.resolve(adapter).parents
    return [("base", f"{name}@{each.digest}") for each in parents if each.role == "base"]


def _base_name(config: bytes) -> str:
    import orjson

    return str(orjson.loads(config).get("base_model_name_or_path") or "")
