"""`ragstone jobs schedules`: jobs that start by the clock; add, list, pause, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.jobs.queue import Jobs
    from infra.jobs.schedules import Schedule

Name = Annotated[str, typer.Argument(help="Name of the schedule.")]

app = typer.Typer(help="Start jobs by the clock.", no_args_is_help=True, rich_markup_mode=None)


@app.command("add")
def add(
    name: Name,
    job: Annotated[str, typer.Argument(help="Kind of the job to start.")],
    cron: Annotated[
        str, typer.Argument(help="Five fields such as '0 3 * * *', or an alias such as @daily.")
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Of the job; values are JSON or text."),
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Such as Europe/Berlin.")] = "UTC",
    catch_up: Annotated[
        Literal["skip", "last", "all"],
        typer.Option(help="Of ticks while nothing ran: start no job, one, or one for each."),
    ] = "last",
    json: Json = False,
) -> None:
    """Add a schedule, or change the one of that name."""
    from infra.jobs.schedules import Schedule
    from service.cli.job_output import parse_arguments

    given = parse_arguments(arguments or [])
    with opened() as parts:
        parts.jobs.registry.get(job).check(given)
        schedule = Schedule(
            name, job, cron, time_zone=time_zone, catch_up=catch_up, arguments=given
        )
        parts.jobs.schedules.put(schedule)
        row = _row(parts.jobs, schedule)
    if json:
        print_json(row)
    else:
        say(f"{name!r} starts {job!r} next at {_cell(row['next_at'])}")


@app.command("list")
def list_schedules(json: Json = False) -> None:
    """List the schedules and when each fires next."""
    with opened() as parts:
        rows = [_row(parts.jobs, each) for each in parts.jobs.schedules.list()]
    if json:
        print_json(rows)
    elif rows:
        columns = ("name", "job", "cron", "time_zone", "catch_up", "paused", "next_at")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        note("No schedules; `ragstone jobs schedules add` makes one")


@app.command("remove")
def remove(name: Name) -> None:
    """Drop a schedule; jobs it started stay."""
    with opened() as parts:
        parts.jobs.schedules.remove(name)
    say(f"Removed {name!r}")


@app.command("pause")
def pause(
    name: Name,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on instead.")] = False,
) -> None:
    """Stop a schedule; what would have fired meanwhile starts nothing."""
    with opened() as parts:
        parts.jobs.schedules.pause(name, paused=not resume)
    say(f"{'Resumed' if resume else 'Paused'} {name!r}")


def _row(jobs: Jobs, schedule: Schedule) -> dict[str, Any]:
    from dataclasses import asdict

    next_at = None if schedule.paused else jobs.schedules.next_tick(schedule.name)
    return {**asdict(schedule), "next_at": next_at}


def _cell(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M %Z}" if hasattr(value, "strftime") else str(value or "")
