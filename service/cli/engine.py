"""`ragstone engine`: model servers of this machine, started, looked at, read from and stopped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, note, print_json, print_table, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from pathlib import Path

    from service.supervision.engines import ReplicaStatus, Status

app = typer.Typer(
    help="Run the model servers that the settings name, on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The engine's name in the settings.")]
FOLLOW_SECONDS = 0.3
COLUMNS = ("engine", "replica", "state", "pid", "port", "up", "restarts", "running", "waiting")


@app.command("start")
def start(
    name: Name,
    wait: Annotated[bool, typer.Option(help="Return when it is ready, not at once.")] = True,
    json: Json = False,
) -> None:
    """Start an engine in the background; it is kept running until it is stopped."""
    with opened() as parts:
        with waiting(f"Starting {name}"):
            parts.engines.start(name, wait=wait)
        if json:
            print_json(_described(parts.engines.status(name)) if wait else {"engine": name})
        elif wait:
            _show([parts.engines.status(name)])
        else:
            say(f"{name} is starting; `ragstone engine status {name}` tells how far it is")


@app.command("status")
def status(
    name: Annotated[str | None, typer.Argument(help="One engine; else all that run.")] = None,
    json: Json = False,
) -> None:
    """Show what runs: process, port, time, restarts, and requests at hand."""
    with opened() as parts:
        names = [name] if name else parts.engines.running()
        found = [parts.engines.status(each) for each in names]
    if json:
        print_json([_described(each) for each in found])
    elif found:
        _show(found)
    else:
        note("No engine runs; start one with `ragstone engine start NAME`")


@app.command("stop")
def stop(
    name: Name,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for requests at hand.")] = False,
    json: Json = False,
) -> None:
    """Take no more requests, finish those at hand up to a limit, and end the engine."""
    with opened() as parts, waiting(f"Stopping {name}"):
        parts.engines.stop(name, drain=not now)
    if json:
        print_json({"engine": name, "stopped": True})
    else:
        say(f"Stopped {name}")


@app.command("logs")
def logs(
    name: Name,
    replica: Annotated[int, typer.Option(min=0, help="Which of its processes.")] = 0,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="From the end.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Print what an engine wrote, also after it has ended."""
    with opened() as parts:
        text = parts.engines.logs(name, replica=replica, lines=lines)
        path = parts.engines.log_file(name, replica=replica)
    if json:
        print_json({"engine": name, "replica": replica, "lines": text.splitlines()})
        return
    typer.echo(text, nl=False)
    if follow:
        _follow(path)


def _follow(path: Path) -> None:
    offset = path.stat().st_size
    while True:
        time.sleep(FOLLOW_SECONDS)
        size = path.stat().st_size
        if size < offset:  # set aside, and begun anew
            offset = 0
        with path.open("rb") as file:
            file.seek(offset)
            new = file.read(size - offset)
        offset += len(new)
        typer.echo(new.decode("utf-8", errors="replace"), nl=False)


def _show(found: list[Status]) -> None:
    rows = [
        [row["engine"], *(row[column] for column in COLUMNS[1:])]
        for each in found
        for row in _rows(each)
    ]
    print_table(COLUMNS, rows, numbers=COLUMNS[3:])
    for each in found:
        if not each.is_supervised:
            note(
                f"Nobody watches {each.name}: its supervisor is gone. "
                f"`ragstone engine stop {each.name}` ends what is left."
            )


def _described(status: Status) -> dict[str, Any]:
    return {
        "engine": status.name,
        "supervised": status.is_supervised,
        "replicas": [_replica(each) for each in status.replicas],
    }


def _replica(replica: ReplicaStatus) -> dict[str, Any]:
    state, load = replica.state, replica.load
    return {
        "replica": state.index,
        "state": state.phase,
        "pid": state.pid,
        "port": state.port or None,
        "url": state.url if state.port else None,
        "uptime_seconds": round(time.time() - state.ready, 1) if state.ready else None,
        "restarts": state.restarts,
        "last_exit": state.last_exit,
        "running": load.running if load else None,
        "waiting": load.waiting if load else None,
    }


def _rows(status: Status) -> list[dict[str, Any]]:
    return [
        {"engine": status.name, "up": _duration(row["uptime_seconds"]), **row}
        for row in map(_replica, status.replicas)
    ]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
