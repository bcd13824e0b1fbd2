"""`ragstone models`: train classical models from a YAML file, retrain them, explore tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest
from service.cli import comparisons, forgetting, predictions
from service.cli.output import (
    Json,
    console,
    note,
    print_json,
    print_table,
    printable,
    say,
    waiting,
)
from service.cli.session import opened

if TYPE_CHECKING:
    from training.classical import Outcome
    from training.tabular.exploring import Exploration
    from training.tabular.searching import Progress

app = typer.Typer(
    help="Train classical models, and keep them fresh.", no_args_is_help=True, rich_markup_mode=None
)
REFUSED = 1
for _name, _command in (
    ("list", predictions.list_models),
    ("show", predictions.show),
    ("predict", predictions.predict),
    ("compare", comparisons.compare),
    ("forget", forgetting.forget),
):
    app.command(_name)(_command)
TASKS = ("classification", "regression")


@app.command("train")
def train(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The specification, in YAML.")],
    folder: Annotated[
        Path | None, typer.Option(help="Of this run; else below the data folder.")
    ] = None,
    json: Json = False,
) -> None:
    """Train, check and register a classical model; a constant and a linear model come first."""
    from service.models import model_training
    from training import classical

    asked = classical.read(spec)
    with opened() as parts, _bar() as tell:
        around = model_training.around(parts, spec.absolute().parent, note=note, tell=tell)
        place = folder or model_training.folder_of(parts, asked)
        outcome = classical.train(asked, place, around)
    if json:
        print_json(asdict(outcome))
    else:
        _print(outcome)


@app.command("retrain")
def retrain(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="The specification of a retraining, in YAML.")
    ],
    cause: Annotated[
        str | None, typer.Option(help="Why, in words; kept with the evidence.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a challenger on what came in; it takes over if it is surely better and forgets nothing.

    Fails if the challenger was refused. One that is withheld waits as the alias `candidate`, one
    that is staged is compared in production as `promotion.to` says.
    """
    from service.models import retraining

    with opened() as parts, _bar() as tell:
        why = {"words": cause} if cause else None
        result = retraining.run(parts, spec, cause=why, note=note, tell=tell)
    if json:
        print_json(asdict(result))
    else:
        say(f"{result.decision} {printable(result.challenger or '-')}")
        rows = [
            (each.name, "pass" if each.passed else "fail", each.reason) for each in result.answers
        ]
        if rows:
            print_table(("gate", "is", "why"), rows)
        note(f"evidence {result.evidence}")
    if result.decision == "refused":
        raise typer.Exit(REFUSED)


@app.command("explore")
def explore(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A dataset of the store, or a path of a table.")
    ],
    target: Annotated[str | None, typer.Option(help="The column that will be predicted.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a dataset.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a page of HTML here.")
    ] = None,
    json: Json = False,
) -> None:
    """Look at a table before training: what is missing, odd, or gives the target away."""
    from infra.datasets.datasets import Datasets
    from service import exploration_page
    from training.tabular import exploring, reading
    from training.tabular.specification import TableSource

    if task is not None and task not in TASKS:
        raise InvalidRequest(f"--task is {task!r}; give one of {', '.join(TASKS)}")
    with opened() as parts, waiting("looking at the rows"):
        source = TableSource(rows=data, split=split)
        rows = reading.read(source, folder=Path(), datasets=Datasets(parts.artifacts))
        found = exploring.explore(
            rows.frame,
            name=rows.name,
            target=target,
            task=task,  # type: ignore[arg-type]
        )
    if output is not None:
        output.write_bytes(exploration_page.write(found))
        note(f"wrote {output}")
    if json:
        print_json(exploring.as_values(found))
    else:
        _print_exploration(found)


@app.command("schema")
def schema(
    of: Annotated[str, typer.Argument(metavar="[training|retraining]")] = "training",
) -> None:
    """Print the JSON Schema of specifications, for editors and forms."""
    from training import classical
    from training import retrain as retraining

    schemas = {"training": classical.schema, "retraining": retraining.schema}
    if of not in schemas:
        raise InvalidRequest(f"There is no schema of {of!r}; give one of {', '.join(schemas)}")
    print_json(schemas[of]())


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """Draw how many trials are done and what the best is, if someone is watching."""
    from rich import progress

    columns = (
        progress.TextColumn("trial {task.completed:.0f}/{task.total:.0f}"),
        progress.BarColumn(bar_width=30),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    is_watched = sys.stderr.isatty()
    with progress.Progress(
        *columns, console=console(sys.stderr), transient=True, disable=not is_watched
    ) as bar:
        task = bar.add_task("", total=None, visible=False)

        def tell(told: Progress) -> None:
            words = printable(told.words)
            bar.update(task, total=told.total, completed=told.done, visible=True, description=words)

        yield tell


def _print(outcome: Outcome) -> None:
    say(printable(outcome.model))
    rows = [
        (name, f"{value:.4g}", f"{outcome.constant[name]:.4g}")
        for name, value in outcome.held_out.items()
    ]
    print_table(("figure", "held out", "a constant"), rows, numbers=("held out", "a constant"))
    note(f"{outcome.estimator}, served as {outcome.format}")
    if outcome.diagnosis is not None:
        note(outcome.diagnosis)


def _print_exploration(found: Exploration) -> None:
    rows = [(each.kind, str(each)) for each in found.hints]
    if rows:
        print_table(("kind", "look at this"), rows)
    else:
        say("Nothing that stands out.")
    words = f"{found.profile.rows:,} rows, {len(found.profile.columns):,} columns"
    note(words + (f", target {found.target!r}" if found.target else ""))
