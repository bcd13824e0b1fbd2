"""What runs leave in the stores and on the disk, and when it is removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from infra.artifacts.store import ArtifactStore
from infra.database.fine_tuning_tables import fine_tuning_checkpoint
from infra.errors import Conflict, InvalidRequest, StorageFailed
from infra.fine_tuning_settings import Tunable
from infra.jobs import leases
from infra.jobs.admission import Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt, Interrupted, NoSteps
from infra.jobs.definitions import Registry, Resources
from infra.jobs.processes import this_process
from service.fine_tuning import results, running
from service.fine_tuning.records import FINISHED, Asked, FineTuningJob, FineTuningJobs, Status
from service.fine_tuning.specifying import Wanted, specify
from service.schemas.fine_tuning import FineTuningJobOut
from service.wiring import Components
from service.work import launching

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Store = Callable[..., FineTuningJob]


@pytest.fixture
def parts(fast_settings: Any, open_components: Any) -> Components:
    opened: Components = open_components(fast_settings())
    return opened


@pytest.fixture
def store(parts: Components, tmp_path: Path) -> Store:
    def store(number: int, status: Status, *, days_ago: int = 0, job_id: str = "") -> FineTuningJob:
        """Write a job down with a folder, and with adapters as if its process had stored them."""
        method = {"type": "supervised", "supervised": {"hyperparameters": {}}}
        asked = Asked("tiny", "file-1", None, method, None, 1, None)
        rows = {"data": {"train": {"rows": "rows/training.jsonl"}, "eval": None}}
        made = FineTuningJob(
            f"ftjob-{number:012}", None, job_id or f"job_{number}", asked, rows, status, NOW,
            finished_at=NOW - timedelta(days=days_ago) if status in FINISHED else None,
        )  # fmt: skip
        with parts.database.write() as connection:
            FineTuningJobs(parts.database).add(connection, made)
        for name in ("", "", "-step-8"):
            (tmp_path / "adapter").mkdir(exist_ok=True)
            (tmp_path / "adapter" / "weights").write_text(f"{number}{name}")
            parts.artifacts.put(tmp_path / "adapter", f"adapter/{made.artifact}{name}")
        (running.folder_of(parts, made.id) / "run").mkdir(parents=True)
        return made

    return store


def stored(parts: Components, *jobs: FineTuningJob) -> list[int]:
    """How many adapters, and their folders, of each job there are."""
    names = [each.name for each in parts.artifacts.names("adapter")]
    return [
        sum(name.startswith(job.artifact) for name in names)
        + running.folder_of(parts, job.id).exists()
        for job in jobs
    ]


def lay_out(parts: Components, job: FineTuningJob) -> Path:
    """Write a copy of a client's rows as a run reads it."""
    rows = running.folder_of(parts, job.id) / "rows" / "training.jsonl"
    rows.parent.mkdir()
    rows.write_text("{}")
    return rows


def add_checkpoint(parts: Components, job: FineTuningJob) -> None:
    row = {"id": "ftckpt-1", "fine_tuning_job_id": job.id, "step": 8, "metrics": {}}
    with parts.database.write() as connection:
        connection.execute(insert(fine_tuning_checkpoint).values(**row, created_at=NOW))


def test_nothing_is_left_of_a_job_that_is_given_up_but_what_it_published(
    parts: Components, store: Store
) -> None:
    cancelled, failed, done = (
        store(number, status) for number, status in enumerate(("cancelled", "failed", "succeeded"))
    )
    assert stored(parts, cancelled, failed, done) == [3, 3, 3]
    running.abandon(parts, cancelled)
    running.abandon(parts, done)
    assert stored(parts, cancelled, failed, done) == [0, 3, 2]


def test_what_failed_is_swept_once_the_queue_has_forgotten_it(
    parts: Components, store: Store
) -> None:
    old, new = store(1, "failed", days_ago=40), store(2, "failed", days_ago=20)
    running.sweep(parts, now=NOW)
    assert stored(parts, old, new) == [0, 3]


def test_where_the_store_is_out_of_reach_a_later_sweep_finds_the_rest(
    parts: Components, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(*_: Any) -> None:
        raise StorageFailed("the store does not answer")

    job = store(1, "cancelled", days_ago=40)
    rows = lay_out(parts, job)
    add_checkpoint(parts, job)
    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "expire", out_of_reach)
        running.abandon(parts, job)
    assert stored(parts, job) == [3]
    assert not rows.exists()
    assert not FineTuningJobs(parts.database).checkpoints(job.id, limit=9).items
    running.sweep(parts, now=NOW)
    assert stored(parts, job) == [0]


def carry_out(
    parts: Components, job: FineTuningJob, *, fence: int = 0, is_cancelled: bool = False
) -> None:
    """Make an attempt at a job, with a fence that is so much less than the one in force."""
    registry = Registry()
    running.define(registry, parts)
    capacity = Capacity(Resources(cpu=1), slots=1)
    who = Claimant("worker", ("fine_tuning",), capacity, TenantLimits())
    with parts.database.write() as connection:
        leases.register(connection, who, process=this_process(), now=parts.jobs.now())
    [taken] = claim(parts.database, who, now=parts.jobs.now())
    stale = replace(taken, fence=taken.fence - fence)
    attempt = Attempt(parts.database, stale, steps=NoSteps(), now=parts.jobs.now)
    if is_cancelled:
        attempt.interrupt("cancelled")
    registry.get("fine_tuning").function(attempt, job=job.id)


def queue(parts: Components, number: int) -> str:
    """Queue the work of a job; return what the queue calls it."""
    return parts.jobs.start("fine_tuning", {"job": f"ftjob-{number:012}"}).id


def test_a_job_that_cannot_be_carried_out_leaves_nothing(parts: Components, store: Store) -> None:
    job = store(1, "queued", job_id=queue(parts, 1))
    with pytest.raises(InvalidRequest, match="it was deleted"):
        carry_out(parts, job)
    ended = FineTuningJobs(parts.database).get(job.id)
    assert ended.error is not None
    assert (ended.status, ended.error["param"]) == ("failed", "training_file")
    assert stored(parts, job) == [0]


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_attempt_that_is_no_more_in_force_removes_nothing(
    parts: Components, store: Store, is_cancelled: bool
) -> None:
    job = store(1, "running", job_id=queue(parts, 1))
    with pytest.raises(Interrupted) as interrupted:
        carry_out(parts, job, fence=1, is_cancelled=is_cancelled)
    assert interrupted.value.reason == "superseded"
    assert FineTuningJobs(parts.database).get(job.id).status == "running"
    assert stored(parts, job) == [3]


@pytest.fixture
def trained(parts: Components, store: Store, monkeypatch: pytest.MonkeyPatch) -> FineTuningJob:
    """A job whose process has just ended well."""
    monkeypatch.setattr(running, "program", lambda *_: None)
    monkeypatch.setattr("training.spec.parse", lambda _: None)
    monkeypatch.setattr("training.launching.watch", lambda *_, **__: {})
    job = store(1, "running", job_id=queue(parts, 1))
    lay_out(parts, job)
    return job


def test_figures_that_were_stored_go_with_a_job_that_ends_without_a_model(
    parts: Components, trained: FineTuningJob
) -> None:
    jobs = FineTuningJobs(parts.database)
    with pytest.raises(Conflict, match="wrote no outcome"):
        carry_out(parts, trained)
    [figures] = parts.files.list().items
    assert jobs.get(trained.id).result_files == [figures.id]
    assert FineTuningJobOut.of(jobs.get(trained.id)).result_files == [], "as it has not succeeded"
    results.store_metrics(parts, jobs.get(trained.id), guard=lambda _: None)
    [again] = parts.files.list().items
    assert again.id != figures.id, "the next attempt stores them anew"
    with parts.database.write() as connection:
        jobs.change(connection, trained.id, status="cancelled")
    running.abandon(parts, jobs.get(trained.id))
    assert not parts.files.list().items


def test_nothing_is_left_of_a_job_that_is_cancelled_in_its_last_moment(
    parts: Components, trained: FineTuningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*_: Any) -> results.Published:
        with parts.database.write() as connection:
            FineTuningJobs(parts.database).change(connection, trained.id, status="cancelled")
        return results.Published(trained, f"adapter/{trained.artifact}@v2", {})

    monkeypatch.setattr(results, "publish", publish)
    carry_out(parts, trained)
    assert stored(parts, trained) == [0]
    assert not parts.files.list().items


def test_no_process_imports_what_lies_in_its_working_folder(
    parts: Components, tmp_path: Path
) -> None:
    wanted = Wanted("supervised", 1, "rows/training.jsonl")
    spec = specify("ftjob-1", "tiny", Tunable(model="m", device="cpu"), wanted)
    python, *options = running.program(parts, spec, tmp_path).command
    assert (python, *options[:3]) == launching.RAGSTONE
    assert options[0] == "-P"


def test_a_launcher_elsewhere_starts_the_program_of_its_own_machines(
    fast_settings: Any, open_components: Any, tmp_path: Path
) -> None:
    parts = open_components(fast_settings(fine_tuning={"launcher": "slurm"}))
    wanted = Wanted("supervised", 1, "rows/training.jsonl")
    spec = specify("ftjob-1", "tiny", Tunable(model="m", device="cpu"), wanted)
    assert running.program(parts, spec, tmp_path).command[:3] == ("ragstone", "train", "run")
