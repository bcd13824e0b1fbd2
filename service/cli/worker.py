"""`ragstone worker`: a process that does nothing but run jobs."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from service.cli.output import note


def worker(
    slots: Annotated[
        int | None, typer.Option(min=1, max=256, help="Jobs at once; else the setting.")
    ] = None,
    cpu: Annotated[
        float | None, typer.Option(min=0.1, help="Cores given to jobs; else the setting.")
    ] = None,
    gpu: Annotated[
        int | None, typer.Option(min=0, help="GPUs given to jobs; else the setting.")
    ] = None,
) -> None:
    """Run jobs until stopped; any number of workers share one database.

    With `jobs.in_process = false` the service leaves all jobs to such processes.
    """
    from infra.settings import load_settings
    from infra.telemetry import configure_logging
    from service.work.kinds import run

    given: dict[str, Any] = {"slots": slots, "cpu": cpu, "gpu": gpu}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(jobs=chosen) if chosen else load_settings()
    configure_logging(settings.logging)
    if sys.stderr.isatty():
        note("This worker takes jobs now; Ctrl-C stops it")
    run(settings)
