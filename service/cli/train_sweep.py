"""`ragstone train sweep`: tries values of a specification, and says which do best."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest
from service.cli.output import Json, console, note, print_json, print_table, printable, say
from service.cli.session import opened

if TYPE_CHECKING:
    from training.spec import FineTuning
    from training.sweeps.study import Trial
    from training.sweeps.sweep import Swept, Told

REPORT = "report.html"


def sweep(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="The specification, with a section `sweep`.")
    ],
    folder: Annotated[
        Path | None, typer.Option(help="Of this sweep; else below the data folder.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Of the plots, in HTML; else in the folder of the sweep.")
    ] = None,
    json: Json = False,
) -> None:
    """Try values as the specification says, several trials at once, and print the best lock.

    A sweep that broke off goes on, and finds the runs of its trials that went on meanwhile.
    Each trial trains and is measured; none registers anything. `ragstone train rerun LOCK` with
    the lock that is printed trains the best again, and registers it.
    """
    from service.cli import sweep_report
    from service.models import sweeping
    from training.spec import read
    from training.sweeps.sweep import as_values
    from training.sweeps.sweep import sweep as run

    asked = read(spec)
    if report is not None:
        _check_writable(report)
    with opened() as parts, _drawn(asked) as tell:
        place = folder or sweeping.folder_of(parts, asked)
        page = report or place / REPORT

        def told(now: Told) -> None:
            _write(page, sweep_report.write(asked, now.trials, now.best))
            tell(now)

        found = run(asked, place, sweeping.around(parts, asked, spec.absolute().parent, tell=told))
    last = sweep_report.write(asked, found.trials, found.best, lock=str(found.path))
    written = str(page) if _write(page, last) else None
    if json:
        print_json({**as_values(found), "report": written})
    else:
        _print(asked, found, written)


def _check_writable(report: Path) -> None:
    """Look before hours of work whether there is a place for what comes out."""
    written = report if report.exists() else report.absolute().parent
    if report.is_dir() or not os.access(written, os.W_OK):
        raise InvalidRequest(
            f"No file {str(report)!r} can be written; give --report one that may be, in a folder "
            "that there is",
            parameter="report",
        )


def _write(page: Path, content: bytes) -> bool:
    """Write the report, or say why not and return False: trials go on without it."""
    try:
        page.write_bytes(content)
    except OSError as error:
        note(f"{str(page)!r} cannot be written: {error.strerror}")
        return False
    return True


@contextmanager
def _drawn(spec: FineTuning) -> Iterator[Callable[[Told], None]]:
    """Tell of each trial that ends, and draw how many are left if someone is watching."""
    from rich import progress

    columns = (
        progress.TextColumn("trial {task.completed:.0f}/{task.total:.0f}"),
        progress.BarColumn(bar_width=30),
        progress.TextColumn("{task.fields[best]}"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(
        *columns, console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("", total=None, best="", visible=False)

        def tell(told: Told) -> None:
            done = sum(each.state != "running" for each in told.trials)
            best = "" if told.best is None else f"best {told.best.value:.6g}"
            bar.update(task, total=told.most, completed=done, best=best, visible=True)
            note(_line(spec, told))

        yield tell


def _line(spec: FineTuning, told: Told) -> str:
    from service.cli.sweep_report import shown

    assert spec.sweep is not None
    trial = told.changed
    values = ", ".join(f"{key} {shown(value)}" for key, value in trial.values.items())
    if trial.state == "failed":
        return f"trial {trial.number} failed: {trial.notes.get('reason')} ({values})"
    if trial.state == "pruned":
        done = max(trial.seen, default=0)
        return f"trial {trial.number} pruned after {done} % of its run ({values})"
    is_best = told.best is not None and told.best.number == trial.number
    words = " (best)" if is_best else ""
    return f"trial {trial.number}: {spec.sweep.metric} {trial.value:.6g}{words}, {values}"


def _print(spec: FineTuning, found: Swept, report: str | None) -> None:
    from service.cli.sweep_report import shown

    assert spec.sweep is not None
    keys = list(spec.sweep.parameters)
    rows = [
        (trial.number, trial.state, _value(trial), *(shown(trial.values.get(k)) for k in keys))
        for trial in sorted(found.trials, key=lambda each: each.number)
    ]
    print_table(("trial", "state", spec.sweep.metric, *keys), rows, numbers=("trial",))
    best = ", ".join(f"{key} {shown(value)}" for key, value in found.best.values.items())
    say(f"best: trial {found.best.number}, {spec.sweep.metric} {found.best.value:.6g}, {best}")
    say(f"lock {found.lock.digest}")
    say(f"ragstone train rerun {printable(str(found.path))}")
    if report is not None:
        note(f"report: {report}")


def _value(trial: Trial) -> str:
    return "" if trial.value is None else f"{trial.value:.6g}"
