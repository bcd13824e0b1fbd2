"""Jobs as the terminal shows them: tables, progress, log lines; arguments as it reads them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from service.cli.output import note, print_json, print_table, say

if TYPE_CHECKING:
    from infra.jobs.queue import Jobs
    from infra.jobs.records import Job, LogLine
    from service.wiring import Components

COLUMNS = ("id", "job", "state", "progress", "created_at", "message")


def parse_arguments(pairs: list[str]) -> dict[str, Any]:
    """Turn `key=value` pairs into arguments: JSON where a value is JSON, else text."""
    import json

    parsed: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"{pair!r} is not of the form KEY=VALUE")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed


def follow(jobs: Jobs, job: Job) -> Job:
    """Draw a job's progress, if someone is watching, until it is finished; return it then."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from service.cli.output import console, printable

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[message]}"),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(job.state, total=None, message="")
        for seen in jobs.watch(job.id):
            job = seen
            bar.update(
                task,
                description=job.state,
                total=None if job.progress.fraction is None else 1.0,
                completed=job.progress.fraction or 0.0,
                message=printable(job.progress.message),
            )
    return job


def finish(job: Job, *, json: bool) -> None:
    """Print a job that was started or watched; exit with 1 if it failed or was cancelled."""
    if json:
        print_json(as_dict(job))
    else:
        say(f"{job.id} is {job.state}" + (f": {job.error}" if job.error else ""))
        if job.result not in (None, {}):
            print_json(job.result)
    if job.state in ("failed", "cancelled"):
        raise typer.Exit(1)


def tell_without_worker(parts: Components) -> None:
    """Say so if nobody is there to run jobs."""
    if not parts.jobs.workers():
        note("No worker runs now; the job waits for `ragstone serve` or `ragstone worker`")


def as_dict(job: Job) -> dict[str, Any]:
    """Return a job as `--json` prints it."""
    return {
        "id": job.id,
        "job": job.name,
        "state": job.state,
        "progress": job.progress.fraction,
        "message": job.progress.message,
        "arguments": job.arguments,
        "result": job.result,
        "error": job.error,
        "cancel_requested": job.cancel_requested,
        "tenant": job.tenant,
        "key": job.key,
        "priority": job.priority,
        "lane": job.lane,
        "worker": job.worker,
        "failures": job.failures,
        "crashes": job.crashes,
        "available_at": job.available_at,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def print_list(found: Any, *, json: bool, otherwise: str) -> None:
    """Print jobs as a table, or say what there is instead."""
    rows = [as_dict(job) for job in found]
    if json:
        print_json(rows)
    elif rows:
        for row in rows:
            row["progress"] = "" if row["progress"] is None else f"{row['progress']:.0%}"
            row["message"] = row["error"] if row["state"] == "failed" else row["message"]
        cells = [[cell(row[name]) for name in COLUMNS] for row in rows]
        print_table(COLUMNS, cells, numbers=("progress",))
    else:
        note(otherwise)


def print_line(line: LogLine, *, json: bool) -> None:
    """Print a line of a log."""
    if json:
        import orjson

        typer.echo(orjson.dumps(line, option=orjson.OPT_UTC_Z).decode())
    else:
        say(f"{line.at:%Y-%m-%d %H:%M:%S}  {line.level:<7}  {line.message}")


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    return f"{value:%Y-%m-%d %H:%M:%S}" if hasattr(value, "strftime") else str(value or "")
