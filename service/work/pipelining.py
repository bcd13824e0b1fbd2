"""Connects pipelines to this process: their folders, their programs, the jobs that run steps."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from infra.errors import InvalidRequest, NotFound
from infra.jobs.definitions import Behaviour, Json, Registry
from infra.pipelines import background
from infra.pipelines.definition import Pipeline, load
from infra.pipelines.execution import Executor
from infra.pipelines.foreground import step_here
from infra.pipelines.planning import Planner
from infra.pipelines.runs import Runs
from infra.pipelines.workplace import Surroundings
from service.work import launching

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from infra.jobs.attempt import Attempt
    from infra.pipelines.records import Run, StepRecord
    from service.wiring import Components

RUN = "pipeline.run"


def define(registered: Registry, parts: Components) -> None:
    """Register the job that runs one step of a pipeline, and the one that starts a whole run."""
    background.define(registered, lambda: executor(parts))

    def start(attempt: Attempt, *, file: str, params: dict[str, str] | None = None) -> Json:
        path = Path(file)
        if not path.is_absolute():
            raise InvalidRequest(f"{file!r} means another file in every folder; name all of it")
        pipeline = load(path, params)
        key = f"job {attempt.job_id}"
        run_id = _known(parts, pipeline, key)
        if run_id is None:
            plan = planner(parts).plan(pipeline, path.parent)
            run_id = planner(parts).start(plan, mode="jobs", key=key).id
        return {"run": submit(parts, run_id).id}

    # Not over HTTP: the file that it names says what is run.
    registered.job(RUN, behaviour=Behaviour(steps=False))(start)


def executor(parts: Components) -> Executor:
    """Return what runs steps; those of runs in the background queue the ones that follow."""
    known = runs(parts)

    def queue(connection: Connection, run: Run) -> None:
        background.queue_ready(parts.jobs, known, connection, run=run)

    return Executor(parts.artifacts, known, surroundings(parts), ended=queue)


def planner(parts: Components) -> Planner:
    """Return what plans runs and enters them."""
    around = surroundings(parts)
    return Planner(parts.artifacts, runs(parts), around.variables, around.folder)


def runs(parts: Components) -> Runs:
    return Runs(parts.database)


def submit(parts: Components, run_id: str) -> Run:
    """Have workers run a run that was entered for them."""
    return background.submit(parts.jobs, runs(parts), run_id)


def reconciled(parts: Components, run_id: str) -> Run:
    """Return a run, with what became of jobs that ended without a word to it."""
    return background.reconcile(runs(parts), run_id)


def cancel(parts: Components, run_id: str) -> Run:
    """End a run, wherever it runs."""
    return background.cancel(parts.jobs, runs(parts), run_id)


def run_step(
    parts: Components, pipeline: Pipeline, file: Path, *, name: str, key: str
) -> StepRecord:
    """Run one step of the run that a scheduler outside calls `key`; the first one begins it."""
    run_id = _known(parts, pipeline, key)
    if run_id is None:
        plan = planner(parts).plan(pipeline, file.absolute().parent)
        run_id = planner(parts).start(plan, mode="external", key=key).id
    return step_here(executor(parts), run_id, name)


def surroundings(parts: Components) -> Surroundings:
    """Return what steps run in: their programs see the same data as this process."""
    settings = parts.settings
    own = {name: value for name, value in os.environ.items() if name.startswith("RAGSTONE_")}
    own["RAGSTONE_DATA_FOLDER"] = str(settings.data_folder.absolute())
    config = os.path.abspath(os.environ.get("RAGSTONE_CONFIG", "ragstone.toml"))
    if os.path.isfile(config):
        own["RAGSTONE_CONFIG"] = config
    if settings.database_url is not None:
        own["RAGSTONE_DATABASE_URL"] = _anchored(settings.database_url.get_secret_value())
    if settings.artifacts.location is not None:
        own["RAGSTONE_ARTIFACTS__LOCATION"] = _absolute(settings.artifacts.location)
    return Surroundings(
        folder=settings.data_folder.absolute() / "pipelines",
        programs={"ragstone": launching.RAGSTONE, "python": (sys.executable,)},
        variables=dict(os.environ),
        own_variables=own,
    )


def _known(parts: Components, pipeline: Pipeline, key: str) -> str | None:
    try:
        return runs(parts).by_key(pipeline.name, key).id
    except NotFound:
        return None


def _anchored(url: str) -> str:
    """Return a database URL that means the same in every folder."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        return url
    database = os.path.abspath(str(parsed.database))
    return parsed.set(database=database).render_as_string(hide_password=False)


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.abspath(location)
