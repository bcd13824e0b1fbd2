"""`ragstone models list`, `show` and `predict`: which models answer, and predictions for tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.errors import InvalidRequest
from service.cli.output import (
    Json,
    On,
    Workers,
    console,
    note,
    print_json,
    print_table,
    say,
)
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.classical import ModelFile
    from service.prediction.views import LiveView
    from service.wiring import Components

Model = Annotated[str, typer.Argument(metavar="MODEL", help="NAME, NAME@v3 or NAME@ALIAS.")]


def list_models(json: Json = False) -> None:
    """List the classical models in the artifact store, with their versions and aliases."""
    with opened() as parts:
        rows = list(_rows(parts))
    if json:
        print_json(rows)
    elif rows:
        columns = ("model", "version", "aliases", "task", "target", "format", "created_at")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        note("No classical models; train one with `ragstone models train SPEC`")


def show(model: Model, json: Json = False) -> None:
    """Load a version as the service would, and tell what it takes and answers."""
    from service.models import batch_predicting

    with opened() as parts:
        loaded = batch_predicting.opened(parts, model)
    found = loaded.model
    asked = loaded.reader.asked
    inputs = [each.model_dump(mode="json", exclude_none=True) for each in asked]
    joins = loaded.reader.joins
    views = [] if joins is None else [_view(each) for each in joins.views]
    if json:
        print_json(
            {
                "model": str(loaded.reference),
                "format": found.format,
                "task": found.task,
                "target": found.target,
                "classes": found.classes,
                "thresholds": found.thresholds,
                "inputs": inputs,
                "views": views,
                "bytes": loaded.runtime.size_bytes,
            }
        )
        return
    classes = "" if found.classes is None else f", one of {', '.join(map(str, found.classes))}"
    say(f"{loaded.reference} predicts {found.target!r}{classes}")
    rows = [[each["name"], each["type"], "yes" if each["nullable"] else "no"] for each in inputs]
    print_table(("input", "type", "may be missing"), rows)
    if views:
        told = [
            [each["view"], each["key"], ", ".join(each["columns"]), f"{each['rows']:,}"]
            for each in views
        ]
        print_table(("joined from", "by", "columns", "rows"), told)
        for each in views:
            if each["problem"]:
                note(f"{each['view']} is not the newest: {each['problem']}")


def _view(live: LiveView) -> dict[str, Any]:
    view, version = live.view, live.version
    return {
        "view": str(version.reference),
        "key": view.asked_key,
        "columns": view.features,
        "rows": len(version.index),
        "bytes": version.index.size_bytes,
        "trained_with": view.version,
        "problem": live.problem,
    }


def predict(
    model: Model,
    data: Annotated[
        str, typer.Option(help="A file of rows (Parquet, CSV, JSON Lines), or dataset/NAME@vN.")
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="A Parquet file, or predictions/NAME of the store."),
    ],
    cache: Annotated[
        bool, typer.Option("--cache", help="Answer requests by key from them, as settings say.")
    ] = False,
    on: On = "here",
    workers: Workers = 2,
    json: Json = False,
) -> None:
    """Predict for every row of a table; run again, it goes on where it stopped.

    A dataset of the store is predicted by a job, whose result is an artifact.
    """
    from service.models import batch_predicting

    kind = f"{batch_predicting.KIND}/"
    is_stored = output.startswith(kind)
    if is_stored != (data.startswith("dataset/") and not Path(data).exists()):
        raise InvalidRequest(
            f"From a file to a file, or from dataset/NAME to {kind}NAME: not from {data!r} to "
            f"{output!r}"
        )
    if cache and not is_stored:
        raise InvalidRequest("--cache is of predictions in the store: from dataset/NAME")
    on_ray = workers if on == "ray" else 0
    with opened() as parts:
        if is_stored:
            name = output.removeprefix(kind)
            batch_predicting.check_name(name)
            arguments = {"model": model, "data": data, "name": name, "cache": cache}
            arguments["workers"] = on_ray
            job = parts.jobs.start(batch_predicting.PREDICT, arguments)
            told: dict[str, Any] = {"job": job.id, "state": job.state}
            words = f"{job.id}: follow it with `ragstone jobs show {job.id}`"
        else:
            loaded = batch_predicting.opened(parts, model)
            score = batch_predicting.scoring(parts, loaded, workers=on_ray)
            with _bar() as tell:
                rows = batch_predicting.predict_file(
                    loaded, Path(data), Path(output), score=score, tell=tell
                )
            told = {"model": str(loaded.reference), "output": output, "rows": rows}
            words = f"{rows:,} rows by {loaded.reference} in {output}"
    if json:
        print_json(told)
    else:
        say(words)


@contextmanager
def _bar() -> Iterator[Callable[[int], None]]:
    """Draw how many rows are done, if someone is watching."""
    from rich import progress

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.completed:,.0f} rows"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(
        *columns, console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows: bar.update(task, completed=rows)


def _rows(parts: Components) -> Iterator[dict[str, Any]]:
    from infra import classical
    from infra.errors import NotFound, RagstoneError
    from service.prediction import loading

    for name in parts.artifacts.names(classical.KIND):
        for version in parts.artifacts.versions(f"{name.kind}/{name.name}"):
            try:
                found: ModelFile | None = loading.described(
                    parts.artifacts, version.reference.pinned
                )
            except NotFound:  # a language model has the same kind
                break
            except RagstoneError as error:
                note(f"{version.reference}: {error.message}")
                found = None
            yield {
                "model": f"{name.kind}/{name.name}",
                "version": version.reference.version,
                "aliases": list(version.aliases),
                "task": found.task if found else None,
                "target": found.target if found else None,
                "format": found.format if found else None,
                "created_at": version.created_at,
                "digest": version.reference.digest,
            }


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if value is None:
        return "?"
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)
