"""Shows pipeline runs in the terminal: live while they run, as a table, as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.cli.output import console, note, print_json, print_table, printable, say

if TYPE_CHECKING:
    from rich.table import Table

    from infra.pipelines.execution import Executor
    from infra.pipelines.planning import Forecast
    from infra.pipelines.records import Run, StepRecord

FOLLOW_SECONDS = 0.5
_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "cached": "dim",
    "skipped": "dim",
    "failed": "red",
    "blocked": "yellow",
    "cancelled": "yellow",
}


def watched(executor: Executor, run: Run, *, parallel: int | None) -> Run:
    """Run what is open of a run, and show it as it goes: on standard error, if it is a terminal."""
    from infra.pipelines.foreground import run_here

    with ended_by_sigterm(), _shown() as show:
        return run_here(executor, run.id, parallel=parallel, changed=show)


def followed(read: Callable[[], Run]) -> Run:
    """Show a run that is run elsewhere until it has ended."""
    with _shown() as show:
        while True:
            run = read()
            show(run)
            if run.is_finished:
                return run
            time.sleep(FOLLOW_SECONDS)


def print_run(run: Run, *, json: bool) -> None:
    if json:
        print_json(_run(run))
        return
    print_table(
        ("step", "state", "time", "made", "why"),
        [
            (
                step.name,
                step.state,
                _seconds(step),
                ", ".join(made.reference for made in step.outputs.values()),
                step.reason,
            )
            for step in run.steps.values()
        ],
        numbers=("time",),
    )
    say(f"{run.id} {_state(run)}: {_counted(run)}")
    for step in run.steps.values():
        if step.error and step.state == "failed":
            note(f"{step.name}: {step.error}")


def print_runs(runs: Sequence[Run], *, json: bool) -> None:
    if json:
        print_json([_run(run) for run in runs])
    elif runs:
        print_table(
            ("run", "pipeline", "state", "started", "steps"),
            [
                (
                    run.id,
                    run.pipeline.name,
                    _state(run),
                    f"{run.created_at:%Y-%m-%d %H:%M}",
                    _counted(run),
                )
                for run in runs
            ],
        )
    else:
        note("No runs; start one with `ragstone pipeline run FILE`")


def print_step(step: StepRecord, *, json: bool) -> None:
    if json:
        print_json(_step(step))
        return
    made = ", ".join(each.reference for each in step.outputs.values())
    say(f"{step.name} {step.state}{f': {made}' if made else ''}")
    if step.error:
        note(f"{step.name}: {step.error}")


def print_forecast(found: Sequence[Forecast], *, json: bool) -> None:
    if json:
        print_json(found)
        return
    words = {"run": "runs", "cached": "stays", "perhaps": "may run", "skip": "is left out"}
    print_table(
        ("step", "what", "why"), [(each.step, words[each.action], each.reason) for each in found]
    )


@contextmanager
def _shown() -> Iterator[Callable[[Run], object]]:
    """Give a function that shows a run: a table that is redrawn, or a line for each change."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.live import Live

    with Live(console=console(sys.stderr), transient=True, refresh_per_second=8) as live:
        yield lambda run: live.update(_table(run))


class _Lines:
    """Says of every step when its state changes."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def __call__(self, run: Run) -> None:
        for step in run.steps.values():
            if step.state != self._seen.get(step.name, "waiting"):
                why = f" ({step.reason})" if step.reason and step.state != "succeeded" else ""
                note(f"{step.name}: {step.state}{why}")
            self._seen[step.name] = step.state


def _table(run: Run) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for step in run.steps.values():
        style = _STYLES.get(step.state, "")
        cells = (step.name, step.state, _seconds(step), step.reason)
        table.add_row(*(Text(printable(cell), style=style) for cell in cells))
    return table


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, so that the programs of the steps are ended with this one."""
    import signal

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "pipeline": run.pipeline.name,
        "key": run.key,
        "mode": run.mode,
        "state": _state(run),
        "params": run.pipeline.params,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "steps": [_step(step) for step in run.steps.values()],
    }


def _step(step: StepRecord) -> dict[str, Any]:
    return {
        "name": step.name,
        "state": step.state,
        "reason": step.reason,
        "inputs": step.inputs,
        "outputs": {local: made.reference for local, made in step.outputs.items()},
        "result": step.result,
        "error": step.error,
        "failures": step.failures,
        "job": step.job_id,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
    }


def _state(run: Run) -> str:
    return "abandoned" if run.is_abandoned else run.state


def _counted(run: Run) -> str:
    states = [step.state for step in run.steps.values()]
    words = {"succeeded": "ran", "cached": "unchanged", "skipped": "left out"}
    return ", ".join(
        f"{states.count(state)} {words.get(state, state)}" for state in dict.fromkeys(states)
    )


def _seconds(step: StepRecord) -> str:
    if step.started_at is None:
        return ""
    from datetime import UTC, datetime

    seconds = ((step.finished_at or datetime.now(UTC)) - step.started_at).total_seconds()
    return f"{seconds:.1f} s"
