"""`ragstone runs`: list, show, compare, plot, export and delete runs; catch up their mirrors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Json, Yes, console, note, print_json, print_table, printable, say
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.tracking.records import RunRecord, State
    from infra.tracking.runs import Runs
    from service.cli.figures import Chart

PLOT_POINTS = 400
MAX_WIDTH = 120
Run = Annotated[str, typer.Argument(help="Id of the run, how it begins, or a name.")]
Several = Annotated[list[str], typer.Argument(help="Ids, how they begin, or names.")]
Metrics = Annotated[
    list[str] | None, typer.Option("--metric", "-m", metavar="NAME", help="Plot this metric.")
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Write the plots to an .svg or .html file."),
]

app = typer.Typer(
    help="List, show, compare, export, delete runs.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_runs(
    kind: Annotated[str | None, typer.Option(help="Only of this kind.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only running, finished, failed, killed or lost ones.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="NAME", help="Show its last value."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME", help="Show it, such as optimizer.lr."),
    ] = None,
    json: Json = False,
) -> None:
    """List runs, newest first."""
    from infra.tracking import description
    from infra.tracking.parameters import flatten
    from service.cli.run_tables import cell

    with opened() as parts:
        found = parts.runs.list(kind=kind, state=_state(state), name=name, limit=limit)
        if json:
            print_json([description.describe(each) for each in found])
            return
        last = [{s.name: s.last for s in parts.runs.series(r.id)} if metric else {} for r in found]
    if not found:
        note("No runs")
        return
    columns = ["name", "kind", "state", "started", "took", *(parameter or ()), *(metric or ())]
    rows = []
    for each, values in zip(found, last, strict=True):
        told = flatten(each.parameters)
        facts = [each.name, each.kind, each.state, f"{each.started_at:%Y-%m-%d %H:%M}"]
        extra = [
            *(told.get(key) for key in parameter or ()),
            *(values.get(m) for m in metric or ()),
        ]
        rows.append([*facts, _took(each), *map(cell, extra), each.id])
    print_table([*columns, "id"], rows, numbers=("took", *(metric or ())))


@app.command("show")
def show(
    run: Run,
    metric: Metrics = None,
    plot: Plot = None,
    packages: Annotated[bool, typer.Option(help="List what was installed.")] = False,
    json: Json = False,
) -> None:
    """Show one run: what it was told, what came out, on which data, code and machine."""
    from infra.tracking import description
    from service.cli.run_tables import print_run

    with opened() as parts:
        record = parts.runs.find(run)
        row = description.describe_fully(parts.runs, record)
        if packages and record.packages:
            row["packages_list"] = list(parts.runs.packages(record.packages))
        charts = _charts(parts.runs, [record], _wanted(row["metrics"], metric, plot))
    if json:
        print_json(row)
    else:
        print_run(row)
    _plot(charts, plot, in_terminal=not json)


@app.command("compare")
def compare(
    runs: Several,
    metric: Metrics = None,
    plot: Plot = None,
    differences: Annotated[bool, typer.Option(help="Show only what differs.")] = False,
    json: Json = False,
) -> None:
    """Put runs side by side; what differs is marked with a star."""
    from infra.tracking.comparison import compare as put_side_by_side
    from infra.tracking.description import describe_comparison
    from service.cli.run_comparison import print_comparison

    with opened() as parts:
        records = [parts.runs.find(each) for each in runs]
        comparison = put_side_by_side(parts.runs, [each.id for each in records])
        names = {s.name: None for each in records for s in parts.runs.series(each.id)}
        charts = _charts(parts.runs, records, _wanted(names, metric, plot))
    if json:
        print_json(describe_comparison(comparison, only_differences=differences))
    else:
        print_comparison(comparison, only_differences=differences)
    _plot(charts, plot, in_terminal=not json)


@app.command("delete")
def delete(runs: Several, yes: Yes = False, json: Json = False) -> None:
    """Delete runs with their metrics; artifacts and the copies in mirrors stay."""
    with opened() as parts:
        found = {record.id: record for record in map(parts.runs.find, runs)}
        if not yes:
            names = ", ".join(f"{each.name!r} ({each.id})" for each in found.values())
            typer.confirm(printable(f"Delete {names}?"), abort=True, err=True)
        for run_id in found:
            parts.runs.delete(run_id)
    if json:
        print_json([{"id": run_id, "deleted": True} for run_id in found])
    else:
        say(f"Deleted {len(found)} run{'s' * (len(found) != 1)}")


@app.command("export")
def export(
    run: Run,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; else standard output.")
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Only the points: metric, step, time, value.")
    ] = False,
) -> None:
    """Write everything that is known of a run as JSON, or its points as CSV."""
    import orjson

    from infra.tracking import description

    with opened() as parts:
        record = parts.runs.find(run)
        if csv:
            text = description.export_csv(parts.runs, record)
        else:
            whole = description.export(parts.runs, record)
            options = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
            text = orjson.dumps(whole, option=options).decode()
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8", newline="")
        note(f"Wrote {str(output)!r}")


@app.command("mirror")
def mirror(json: Json = False) -> None:
    """Bring the mirrors up to date with what they missed while they could not be reached."""
    with opened() as parts:
        names = sorted(parts.tracker.mirroring.mirrors)
        left = parts.tracker.mirroring.catch_up()
    if json:
        print_json({"mirrors": names, "lagging": left})
    elif not names:
        note("No mirrors; name them in tracking.mirrors")
    else:
        say(f"{', '.join(names)}: {left or 'no'} run{'s' * (left != 1)} behind")
    if left:
        raise typer.Exit(1)


def _state(text: str | None) -> State | None:
    from infra.errors import InvalidRequest
    from infra.tracking.records import STATES

    for state in STATES:
        if text == state:
            return state
    if text is None:
        return None
    raise InvalidRequest(f"No state {text!r}; there are {', '.join(STATES)}", parameter="state")


def _wanted(names: Iterable[str], chosen: Sequence[str] | None, plot: Path | None) -> list[str]:
    """Return the metrics to plot: those that were chosen, else all if there is a file for them."""
    from infra.errors import NotFound

    known = sorted(names)
    for name in chosen or ():
        if name not in known:
            raise NotFound("metric", name, among=known)
    return list(chosen or (known if plot else ()))


def _charts(runs: Runs, records: Sequence[RunRecord], names: Sequence[str]) -> list[Chart]:
    from infra.tracking.points import downsample
    from service.cli.figures import Chart, Line

    logged = [{series.name for series in runs.series(each.id)} for each in records]
    return [
        Chart(
            name,
            [
                Line(
                    f"{each.name} ({each.id})", downsample(runs.points(each.id, name), PLOT_POINTS)
                )
                for each, known in zip(records, logged, strict=True)
                if name in known
            ],
        )
        for name in names
    ]


def _plot(charts: Sequence[Chart], file: Path | None, *, in_terminal: bool) -> None:
    from service.cli import figures, plots

    if file is not None:
        figures.write(file, charts)
        note(f"Wrote {str(file)!r}")
    elif in_terminal:
        width = min(console().width, MAX_WIDTH)
        for chart in charts:
            say(chart.title, style="bold")
            for line in plots.draw(chart.lines, width=width):
                say(line)
            say()


def _took(record: RunRecord) -> str:
    seconds = int(record.duration_seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
