"""`ragstone launch`: runs a program here, on Slurm, on Kubernetes or on Ray, watched by a job."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from infra.errors import InvalidRequest
from service.cli.job_output import finish, follow, tell_without_worker
from service.cli.output import Json
from service.cli.session import opened


def launch(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="The program and its arguments.")
    ],
    on: Annotated[
        str, typer.Option(help="Where: local, slurm, kubernetes, ray, or a dotted path.")
    ] = "local",
    folder: Annotated[
        Path | None, typer.Option(help="Working folder, as the launcher's machines see it.")
    ] = None,
    name: Annotated[str, typer.Option(help="Letters, digits, `.`, `_` and `-`.")] = "run",
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    processes: Annotated[int, typer.Option(help="Processes of each node, by torchrun.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of each node.")] = 0,
    cpus: Annotated[int, typer.Option(help="Cores of each node.")] = 1,
    memory_gib: Annotated[float, typer.Option(help="Memory of each node; 0 sets no limit.")] = 0.0,
    hours: Annotated[float | None, typer.Option(help="End it after so much running.")] = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="A variable to set.")
    ] = None,
    secret: Annotated[
        list[str] | None, typer.Option(help="A variable of the worker to pass on, unwritten.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Launched again with it, it is the same.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait.")] = False,
    json: Json = False,
) -> None:
    """Launch a program and watch it; a restart of the watcher neither ends nor repeats it.

    `ragstone jobs cancel` ends it, asked first and then killed. A running service or `ragstone
    worker` does the watching.
    """
    from infra.jobs.definitions import Options
    from training.launchers import Spec
    from training.launching import JOB

    spec = Spec(
        command=tuple(command),
        folder=str((folder or Path()).absolute()),
        name=name,
        environment=dict(_pair(each) for each in environment or []),
        secrets=tuple(secret or []),
        nodes=nodes,
        processes_per_node=processes,
        gpus=gpus,
        cpus=cpus,
        memory_bytes=int(memory_gib * 2**30),
        time_limit_seconds=None if hours is None else hours * 3600,
    )
    with opened() as parts:
        arguments = {"launcher": on, "spec": asdict(spec)}
        job = parts.jobs.start(JOB, arguments, options=Options(key=key))
        tell_without_worker(parts)
        if not detach:
            job = follow(parts.jobs, job)
    finish(job, json=json)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InvalidRequest(f"--env {text!r} is not of the form NAME=VALUE", parameter="env")
    return name, value
