"""The work of a fine-tuning job: rows laid out, a process launched and followed, what came out."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import (
    InvalidConfiguration,
    InvalidRequest,
    MissingDependency,
    NotFound,
    NotReady,
    StorageFailed,
)
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from infra.settings import ENVIRONMENT_PREFIX
from service.fine_tuning import results
from service.fine_tuning.records import FineTuningJob, FineTuningJobs, Said
from service.fine_tuning.rows import ending_of, lay_out
from service.fine_tuning.telling import SERVER_CODE, Telling
from service.work import launching

if TYPE_CHECKING:
    from infra.jobs.records import Job
    from service.wiring import Components
    from training.launchers import Launcher
    from training.launchers import Spec as Program
    from training.launching import RunFailed
    from training.spec import FineTuning

logger = logging.getLogger(__name__)

JOB = "fine_tuning"
POLL_SECONDS = 0.5
ROWS = "rows"
"""A folder for copies of uploaded rows, as long as the job runs."""
TOLD = "progress.jsonl"
"""What the process tells of itself."""
ENDED = ("succeeded", "cancelled")
"""For good: nothing is done for such a job any more."""
MAX_LOG_CHARACTERS = 4_000
RELAUNCHES = 3
"""Of a process that was asked to go or vanished, as with its machine; it goes on from its last
checkpoint."""
ASKED_TO_GO = (143, -15)
HOPELESS = (InvalidConfiguration, InvalidRequest, MissingDependency, NotFound)
DATA = f"{ENVIRONMENT_PREFIX}DATA_FOLDER"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def define(registered: Registry, parts: Components) -> None:
    """Register the job of this file; not over HTTP under its own name, where it has no tenant."""
    from training.launching import RunFailed

    @registered.job(
        JOB,
        resources=Resources(cpu=0.05),
        retries=Retries(attempts=20, crashes=100, permanent=(*HOPELESS, RunFailed)),
        behaviour=Behaviour(detached=True, lane=JOB, width=parts.settings.fine_tuning.max_running),
    )
    def fine_tuning(attempt: Attempt, *, job: str) -> dict[str, Any]:
        return _Work(parts, attempt, job).run()


def paused_for(parts: Components, job: Job) -> str | None:
    """Return the fine-tuning job that a job of the queue works for, if that one is paused."""
    with suppress(NotFound):
        found = FineTuningJobs(parts.database).get(str(job.arguments.get("job")))
        return found.id if found.paused and not found.is_finished else None
    return None


def folder_of(parts: Components, job_id: str) -> Path:
    """Return where a job keeps its files."""
    return (parts.settings.data_folder / "fine_tuning" / job_id).absolute()


def tidy(folder: Path, *, keep_run: bool) -> None:
    """Remove the copies of rows and, unless it may go on, all that the run wrote."""
    for each in folder.glob(f"{ROWS}/*"):
        each.unlink(missing_ok=True)
    if not keep_run:
        shutil.rmtree(folder, ignore_errors=True)


def abandon(parts: Components, job: FineTuningJob) -> None:
    """Remove all that is left of a run that nothing more may come out of.

    Where the store is out of reach, what the run wrote stays as well, for a sweep to find.
    """
    folder = folder_of(parts, job.id)
    tidy(folder, keep_run=True)
    if job.status == "cancelled":
        FineTuningJobs(parts.database).forget_checkpoints(job.id)
    try:
        if job.status != "succeeded":
            results.discard(parts, job)
    except StorageFailed as error:
        logger.warning("what fine-tuning job %s stored stays for now: %s", job.id, error.message)
        return
    tidy(folder, keep_run=False)


def sweep(parts: Components, *, now: datetime) -> None:
    """Remove what runs that failed left to be gone on with, once the queue has forgotten them."""
    before = now - timedelta(days=parts.settings.jobs.keep_days)
    for folder in (parts.settings.data_folder / "fine_tuning").glob("ftjob-*"):
        with suppress(NotFound):
            job = FineTuningJobs(parts.database).get(folder.name)
            if job.finished_at is not None and job.finished_at < before:
                abandon(parts, job)


class _Work:
    """One attempt at one job."""

    def __init__(self, parts: Components, attempt: Attempt, job_id: str) -> None:
        self._parts = parts
        self._attempt = attempt
        self._id = job_id
        self._jobs = FineTuningJobs(parts.database)
        self._folder = folder_of(parts, job_id)
        self._telling = Telling(self._jobs, job_id, guard=attempt.guard)

    def run(self) -> dict[str, Any]:
        """Carry the job out; raises what the queue is to make of its end."""
        from training.launching import RunFailed

        try:
            self._attempt.check()
            job = self._jobs.get(self._id)
            if job.status in ENDED:  # the server died before the queue knew
                abandon(self._parts, job)
            else:
                self._begin(job)
                self._telling.begin(self._folder / TOLD)
                self._train(self._prepare(job))
                self._finish()
            return {"model": job.model_name}
        except Interrupted as interruption:
            if interruption.reason == "cancelled":
                self._leave()
            raise
        except RunFailed as error:
            self._fail(SERVER_CODE, error.message)
            raise
        except HOPELESS as error:
            parameter = error.parameter if isinstance(error, InvalidRequest) else None
            self._fail("invalid_request", error.message, parameter)
            raise

    def _begin(self, job: FineTuningJob) -> None:
        sweep(self._parts, now=datetime.now(UTC))
        if job.status in ("queued", "failed"):  # it is new, or was given another chance
            files = [job.asked.training_file, job.asked.validation_file]
            self._change(
                Said(f"Validating {', '.join(filter(None, files))}"),
                status="validating_files",
                error=None,
                finished_at=None,
            )

    def _prepare(self, job: FineTuningJob) -> Program:
        """Lay out what the process reads."""
        from infra.expectations import yaml_text
        from training.spec import parse

        (self._folder / ROWS).mkdir(mode=0o700, parents=True, exist_ok=True)
        data = job.specification["data"]
        for parameter, source in (("training_file", "train"), ("validation_file", "eval")):
            rows = (data[source] or {}).get("rows", "")
            target = self._folder / rows
            if rows.startswith(f"{ROWS}/") and not target.exists():
                lay_out(self._path(job, parameter), target, parameter=parameter)
        path = self._folder / "spec.yaml"
        path.write_text(yaml_text.write(job.specification), encoding="utf-8")
        return program(self._parts, parse(job.specification), self._folder)

    def _path(self, job: FineTuningJob, parameter: str) -> Path:
        try:
            return self._parts.files.path(getattr(job.asked, parameter))
        except NotFound as error:
            raise InvalidRequest(f"{error.message}: it was deleted", parameter=parameter) from error

    def _train(self, program: Program) -> None:
        from training.launching import RunFailed, watch

        launcher = self._launcher()
        for number in range(RELAUNCHES + 1):
            try:
                watch(
                    self._attempt,
                    launcher,
                    program,
                    poll_seconds=POLL_SECONDS,
                    key=self._key(number),
                    look=self._look,
                )
                return
            except RunFailed as error:
                if number == RELAUNCHES or not goes_on(error):
                    self._note_log(launcher, number)
                    raise
                self._attempt.log(f"launched again: {error.message}", level="warning")

    def _note_log(self, launcher: Launcher, number: int) -> None:
        """Keep the end of what the process wrote in the log of the queue's job."""
        from training.launchers import handle_for

        with suppress(NotFound, NotReady):
            written = launcher.logs(handle_for(launcher.name, self._key(number))).text
            self._attempt.log(written[-MAX_LOG_CHARACTERS:], level="error")

    def _look(self) -> None:
        try:
            self._telling.take(self._folder / TOLD, self._folder / "run/checkpoints")
        except StorageFailed as error:  # what is not taken over now is so at the next look
            logger.warning("fine-tuning job %s is not followed: %s", self._id, error.message)

    def _finish(self) -> None:
        self._telling.take(self._folder / TOLD, self._folder / "run/checkpoints")
        self._attempt.check()
        job = self._jobs.get(self._id)
        results.store_metrics(self._parts, job, guard=self._attempt.guard)
        made = results.publish(self._parts, job, self._folder / "run")
        with self._parts.database.write() as connection:
            self._attempt.guard(connection)
            results.succeed(connection, self._jobs, made)
        abandon(self._parts, self._jobs.get(self._id))

    def _leave(self) -> None:
        """End the processes of a job that was paused or cancelled."""
        self._end_processes()
        with self._parts.database.write() as connection:
            self._attempt.guard(connection)
        job = self._jobs.get(self._id)
        if job.paused:
            self._look()
            tidy(self._folder, keep_run=True)
        else:
            abandon(self._parts, job)

    def _fail(self, code: str, message: str, parameter: str | None = None) -> None:
        job = self._jobs.get(self._id)
        error = job.error or {"code": code, "message": message, "param": parameter}
        said = [] if job.error else [Said(message, "error")]
        ended = {"status": "failed", "paused": False, "finished_at": datetime.now(UTC)}
        self._change(*said, error=error, **ended)
        job = self._jobs.get(self._id)
        if error["code"] == SERVER_CODE and job.status == "failed":
            tidy(self._folder, keep_run=True)
        else:
            abandon(self._parts, job)

    def _change(self, *said: Said, **values: Any) -> None:
        with self._parts.database.write() as connection:
            self._attempt.guard(connection)
            if self._jobs.change(connection, self._id, **values):
                self._jobs.say(connection, self._id, *said)

    def _end_processes(self) -> None:
        from training.launching import cancel

        grace = self._parts.settings.fine_tuning.grace_seconds
        for number in range(RELAUNCHES + 1):
            cancel(self._launcher(), self._key(number), grace_seconds=grace)

    def _launcher(self) -> Launcher:
        return launching.open_launcher(self._parts, self._parts.settings.fine_tuning.launcher)

    def _key(self, number: int) -> str:
        return f"{self._attempt.claim.workflow_id}/{number}"


def rows_of(parameter: str, filename: str) -> str:
    """Return where the rows of an uploaded file are laid out, in the folder of the job."""
    return f"{ROWS}/{parameter.removesuffix('_file')}{ending_of(filename)}"


def program(parts: Components, spec: FineTuning, folder: Path) -> Program:
    """Return the process that trains, with the settings of this one."""
    words = ["train", "run", str(folder / "spec.yaml"), "--folder", str(folder / "run")]
    words += ["--progress", str(folder / TOLD), "--json"]
    words += [] if parts.settings.fine_tuning.smoke else ["--no-smoke"]
    return program_of(parts, words, spec=spec)


def program_of(parts: Components, words: Sequence[str], *, spec: FineTuning) -> Program:
    """Return a command of this program, on what a fine-tuning needs, with these settings."""
    from training.accelerators import gpus_for

    runtime = spec.runtime
    gpus = gpus_for(spec, parts.settings.fine_tuning.launcher)
    bare = program_with(parts, words, name=spec.name, gpus=gpus, secrets=runtime.secrets)
    return replace(
        bare,
        environment={**OFFLINE, **runtime.environment, DATA: bare.environment[DATA]},
        nodes=spec.parallelism.nodes,
        processes_per_node=spec.parallelism.devices_per_node,
        cpus=runtime.cpus_per_node,
        memory_bytes=int((runtime.node_memory_gib or 0) * 2**30),
    )


def program_with(
    parts: Components,
    words: Sequence[str],
    *,
    name: str,
    gpus: int,
    secrets: Sequence[str] = (),
) -> Program:
    """Return a command of this program as one process, with these settings.

    Args:
        parts: of this process.
        words: of the command, without the program's name.
        name: of the run, for people.
        gpus: that it may use.
        secrets: names of further variables that it is given.
    """
    from training.launchers import Spec

    options = parts.settings.fine_tuning
    own = {each for each in os.environ if each.startswith(ENVIRONMENT_PREFIX)}
    return Spec(
        command=(*launching.ragstone(options.launcher), *words),
        folder=str(Path.cwd()),
        name=name,
        environment={**OFFLINE, DATA: str(parts.settings.data_folder.absolute())},
        secrets=tuple(sorted({*own, *secrets} - {DATA})),
        gpus=gpus,
        grace_seconds=options.grace_seconds,
    )


def goes_on(error: RunFailed) -> bool:
    """Whether a process ended for a reason that is not its own."""
    status = error.status
    return status.reason == "lost" or status.exit_code in ASKED_TO_GO
