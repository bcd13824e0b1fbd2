"""`ragstone pipeline`: run steps that changed, see what ran and why, draw, check and export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.output import Json, note, print_json, printable, say
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.pipelines.definition import Pipeline
    from infra.pipelines.graph import Graph
    from infra.pipelines.records import Run

app = typer.Typer(
    help="Run pipelines of steps whose inputs and outputs are versioned artifacts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FAILED = 1

File = Annotated[Path, typer.Argument(help="The pipeline file, in YAML.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="Override a parameter."),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run.")]


@app.command("run")
def run(
    file: File = Path("pipeline.yaml"),
    param: Params = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="STEP", help="Run this step alone, on what the others left."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run steps that did not change.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and why; run nothing.")
    ] = False,
    parallel: Annotated[
        int | None, typer.Option(min=1, max=64, help="Steps at once; else one for each core.")
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Leave it to the workers, and return.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the steps whose inputs, code or parameters changed; the others are left as they are."""
    from service.cli.pipeline_output import print_forecast, print_run, watched
    from service.work import pipelining

    pipeline, _ = _read(file, param)
    with opened() as parts:
        planner = pipelining.planner(parts)
        plan = planner.plan(pipeline, file.absolute().parent, only=only or ())
        if dry_run:
            print_forecast(planner.forecast(plan, force=force), json=json)
            return
        mode: Literal["jobs", "foreground"] = "jobs" if background else "foreground"
        started = planner.start(plan, mode=mode, force=force)
        if background:
            pipelining.submit(parts, started.id)
            _print_started(started.id, json=json)
            return
        done = watched(pipelining.executor(parts), started, parallel=parallel)
    print_run(done, json=json)
    _exit_with(done)


@app.command("status")
def status(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of a run.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Of the list of runs, those of this pipeline.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Runs to list.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the run until it has ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Show how the steps of a run fared, or list the last runs."""
    from service.cli.pipeline_output import followed, print_run, print_runs
    from service.work import pipelining

    with opened() as parts:
        if run_id is None:
            runs = pipelining.runs(parts).list(pipeline=pipeline, limit=limit)
            print_runs([pipelining.reconciled(parts, each.id) for each in runs], json=json)
            return
        found = pipelining.reconciled(parts, run_id)
        if follow:
            found = followed(lambda: pipelining.reconciled(parts, run_id))
    print_run(found, json=json)
    if follow:
        _exit_with(found)


@app.command("logs")
def logs(run_id: RunId, step: Annotated[str, typer.Argument(help="Name of the step.")]) -> None:
    """Print what the program of a step said, on the machine where it ran."""
    from infra.pipelines.execution import output_of
    from service.work import pipelining

    with opened() as parts:
        found = pipelining.runs(parts).get(run_id)
        path = output_of(pipelining.surroundings(parts), found, step)
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                sys.stdout.write(printable(line))


@app.command("cancel")
def cancel(run_id: RunId, json: Json = False) -> None:
    """End a run: steps that wait at once, those that run within a second."""
    from service.cli.pipeline_output import print_run
    from service.work import pipelining

    with opened() as parts:
        print_run(pipelining.cancel(parts, run_id), json=json)


@app.command("graph")
def graph(
    file: File = Path("pipeline.yaml"),
    format: Annotated[
        Literal["text", "mermaid", "dot", "json"], typer.Option(help="What to print.")
    ] = "text",
) -> None:
    """Draw the steps of a pipeline and what passes between them."""
    from infra.pipelines import drawing

    pipeline, found = _read(file, None)
    if format == "json":
        print_json(_as_json(pipeline, found))
    elif format == "text":
        for line in drawing.rails(found, describe=lambda name: _described(pipeline, name)):
            say(line)
    else:
        draw = drawing.mermaid if format == "mermaid" else drawing.dot
        typer.echo(draw(pipeline, found))


@app.command("validate")
def validate(file: File = Path("pipeline.yaml"), param: Params = None, json: Json = False) -> None:
    """Check a pipeline file, its code and its inputs; run nothing."""
    from service.work import pipelining

    pipeline, _ = _read(file, param)
    with opened() as parts:
        plan = pipelining.planner(parts).plan(pipeline, file.absolute().parent)
    if json:
        print_json({"pipeline": pipeline.name, "steps": list(plan.graph.order), "valid": True})
    else:
        say(f"{pipeline.name}: {len(plan.graph.order)} steps, sound")


@app.command("export")
def export(
    file: File = Path("pipeline.yaml"),
    to: Annotated[Literal["airflow"], typer.Option(help="What to write it for.")] = "airflow",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; else it is printed.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Cron expression of five fields; else started by hand.")
    ] = None,
) -> None:
    """Write the pipeline as an Airflow 3 DAG whose tasks call `ragstone pipeline step`."""
    from infra.pipelines.airflow import dag

    pipeline, found = _read(file, None)
    text = dag(pipeline, found, file=file, folder=Path.cwd(), schedule=schedule)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        note(f"Wrote {output}")


@app.command("step")
def step(
    file: File,
    name: Annotated[str, typer.Argument(metavar="STEP", help="Name of the step.")],
    run_key: Annotated[
        str, typer.Option("--run", metavar="KEY", help="What the scheduler calls this run.")
    ],
    param: Params = None,
    json: Json = False,
) -> None:
    """Run one step of a run that a scheduler leads; called again, it does nothing.

    The first step of a run pins what all of them read. A step that failed is tried again.
    """
    from service.cli.pipeline_output import ended_by_sigterm, print_step
    from service.work import pipelining

    pipeline, _ = _read(file, param)
    with ended_by_sigterm(), opened() as parts:
        done = pipelining.run_step(parts, pipeline, file, name=name, key=run_key)
    print_step(done, json=json)
    if done.state not in {"succeeded", "cached"}:
        raise typer.Exit(FAILED)


def _read(file: Path, given: list[str] | None) -> tuple[Pipeline, Graph]:
    from infra.errors import InvalidRequest
    from infra.pipelines import definition
    from infra.pipelines import graph as graphs

    overrides = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidRequest(f"--param {text!r} is not of the form NAME=VALUE")
        overrides[name] = value
    pipeline = definition.load(file, overrides)
    try:
        return pipeline, graphs.build(pipeline)
    except InvalidRequest as error:
        raise InvalidRequest(f"{str(file)!r}: {error.message}") from None


def _print_started(run_id: str, *, json: bool) -> None:
    if json:
        print_json({"id": run_id, "state": "running"})
    else:
        say(run_id)
        note(f"See `ragstone pipeline status {run_id} --follow`; a server or worker runs it")


def _exit_with(run: Run) -> None:
    if run.state != "succeeded":
        raise typer.Exit(FAILED)


def _described(pipeline: Pipeline, name: str) -> str:
    made = ", ".join(output.artifact for output in pipeline.steps[name].outputs.values())
    return f"{name} -> {made}" if made else name


def _as_json(pipeline: Pipeline, found: Graph) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "steps": [
            {
                "name": name,
                "needs": list(found.needs[name]),
                "inputs": pipeline.steps[name].inputs,
                "outputs": {
                    local: output.artifact for local, output in pipeline.steps[name].outputs.items()
                },
            }
            for name in found.order
        ],
    }
