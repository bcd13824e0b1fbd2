"""`ragstone jobs`: list, start, follow, cancel and retry the work that survives a restart."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from service.cli import schedules
from service.cli.job_output import (
    as_dict,
    cell,
    finish,
    follow,
    parse_arguments,
    print_line,
    print_list,
    tell_without_worker,
)
from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

FOLLOW_SECONDS = 0.3
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant only.")]

app = typer.Typer(
    help="List, start, follow, cancel and retry jobs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(schedules.app, name="schedules")


@app.command("list")
def list_jobs(
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(help="In this state only."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of this kind only.")] = None,
    tenant: Tenant = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List jobs, the latest first."""
    with opened() as parts:
        found = parts.jobs.list(state=state, name=name, tenant=tenant, limit=limit)
    print_list(found, json=json, otherwise="No jobs")


@app.command("dead")
def list_dead(tenant: Tenant = None, limit: Limit = 50, json: Json = False) -> None:
    """List the jobs that were given up; `ragstone jobs retry` gives one another chance."""
    with opened() as parts:
        found = parts.jobs.dead_letters(tenant=tenant, limit=limit)
    print_list(found, json=json, otherwise="No job was given up")


@app.command("show")
def show(job: JobId, json: Json = False) -> None:
    """Show one job with every attempt at it."""
    with opened() as parts:
        found, attempts = parts.jobs.get(job), parts.jobs.attempts(job)
    if json:
        print_json({**as_dict(found), "attempts": attempts})
        return
    for key, value in as_dict(found).items():
        if value not in (None, ""):
            say(f"{key:<18}{value}")
    columns = ("fence", "worker", "started_at", "finished_at", "outcome", "error")
    if attempts:
        say()
        print_table(columns, [[cell(getattr(each, name)) for name in columns] for each in attempts])


@app.command("start")
def start(
    name: Annotated[str, typer.Argument(help="Kind of the job; `ragstone jobs kinds` has them.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Its arguments; values are JSON or text."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Started again with the same key, it is the same job.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose job it is.")] = "default",
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is finished.")] = False,
    json: Json = False,
) -> None:
    """Queue a job; a running service or `ragstone worker` takes it."""
    from infra.jobs.definitions import Options

    with opened() as parts:
        parts.jobs.registry.get(name)
        options = Options(key=key, tenant=tenant, priority=priority)
        started = parts.jobs.start(name, parse_arguments(arguments or []), options=options)
        tell_without_worker(parts)
        if wait:
            started = follow(parts.jobs, started)
    finish(started, json=json)


@app.command("kinds")
def kinds(json: Json = False) -> None:
    """List the kinds of job that this release has code for."""
    with opened() as parts:
        rows = [
            {
                "name": name,
                "cpu": found.resources.cpu,
                "gpu": found.resources.gpu,
                "attempts": found.retries.attempts,
                "over_http": found.behaviour.remote,
            }
            for name in parts.jobs.registry.names
            if (found := parts.jobs.registry.get(name))
        ]
    if json:
        print_json(rows)
    else:
        print_table(tuple(rows[0]), [list(row.values()) for row in rows])


@app.command("logs")
def logs(
    job: JobId,
    follow_it: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is finished.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a job's log, with `--json` one object a line."""
    import time

    with opened() as parts:
        after = 0
        while True:
            is_over = parts.jobs.get(job).is_finished  # asked before the lines that it wrote last
            while lines := parts.jobs.logs(job, after=after):
                after = lines[-1].sequence
                for line in lines:
                    print_line(line, json=json)
            if is_over or not follow_it:
                return
            time.sleep(FOLLOW_SECONDS)


@app.command("cancel")
def cancel(job: JobId, json: Json = False) -> None:
    """End a job: at once if it waits, at its next step if it runs."""
    from service.work.kinds import cancel as end

    with opened() as parts:
        found = end(parts, job)
    if json:
        print_json(as_dict(found))
    else:
        say(
            f"{found.id} is {found.state}"
            + ("" if found.is_finished else " and ends at its next step")
        )


@app.command("retry")
def retry(
    job: JobId,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Forget the steps that were finished.")
    ] = False,
    json: Json = False,
) -> None:
    """Give a failed or cancelled job another chance."""
    from service.work.kinds import requeue

    with opened() as parts:
        found = requeue(parts, job, from_scratch=from_scratch)
        tell_without_worker(parts)
    if json:
        print_json(as_dict(found))
    else:
        say(f"{found.id} is {found.state}")


@app.command("watch")
def watch(job: JobId, json: Json = False) -> None:
    """Show a job's progress until it is finished; the exit code is 1 unless it succeeded."""
    with opened() as parts:
        found = follow(parts.jobs, parts.jobs.get(job))
    finish(found, json=json)


@app.command("workers")
def workers(json: Json = False) -> None:
    """List the workers that are alive."""
    with opened() as parts:
        found = parts.jobs.workers()
    if json:
        print_json(list(found))
    elif found:
        rows = [
            (each.id, each.process.partition("/")[0], each.resources.cpu, each.resources.gpu,
             each.slots, cell(each.started_at))
            for each in found
        ]  # fmt: skip
        print_table(("id", "machine", "cpu", "gpu", "slots", "started_at"), rows)
    else:
        note("No worker runs; `ragstone serve` has one, and `ragstone worker` is one")
