"""`ragstone datasets`: tables put as versions, listed, described, compared and looked into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.dataset_output import cell, print_column, print_difference, summary
from service.cli.json_values import as_json
from service.cli.output import Json, note, print_json, print_table, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from infra.datasets.description import Description

Ref = Annotated[
    str, typer.Argument(metavar="REFERENCE", help="Such as faq, faq@v3 or dataset/faq@production.")
]
SplitName = Annotated[str | None, typer.Option(metavar="NAME", help="Only this split.")]

app = typer.Typer(
    help="Put, list, describe, compare versioned tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("put")
def put(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[SPLIT=]PATH...",
            help="Parquet, JSON Lines or CSV, a folder of them, or a saved Hugging Face dataset.",
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as faq, for dataset/faq.")],
    delimiter: Annotated[
        str | None, typer.Option(help="Between the columns of CSV; by default a comma.")
    ] = None,
    nulls: Annotated[
        list[str] | None,
        typer.Option("--null", metavar="TEXT", help="A missing value in CSV; may be repeated."),
    ] = None,
    parents: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="ROLE=REFERENCE", help="What it was made from."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="An alias to point at it.")] = None,
    json: Json = False,
) -> None:
    """Store rows as the next version of a name, with their columns and statistics."""
    from infra.artifacts.publishing import Made
    from infra.datasets.csv_files import Dialect
    from infra.datasets.datasets import Datasets, Options

    pairs = [pair.partition("=") for pair in parents or []]
    if not all(reference for _, _, reference in pairs):
        raise typer.BadParameter("--from is of the form ROLE=REFERENCE")
    options = Options(
        Made(parents=[(role, reference) for role, _, reference in pairs]),
        Dialect(delimiter, ("", *(nulls or ()))),
    )
    with opened() as parts:
        datasets = Datasets(parts.artifacts)
        with waiting("reading every row"):
            stored = datasets.put(_source(sources), name, options)
        if tag is not None:
            parts.artifacts.tag(str(stored), tag)
        row = _row(stored, datasets.describe(str(stored)))
    if json:
        print_json(row)
    else:
        say(f"{stored}  {row['rows']} rows, {row['columns']} columns  {stored.digest}")


@app.command("feast")
def feast(
    repository: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With the feature_store.yaml of Feast.")
    ],
    views: Annotated[list[str], typer.Argument(metavar="VIEW...", help="Feature views of it.")],
    json: Json = False,
) -> None:
    """Put the rows of Feast's feature views, which models that take from them join from then on."""
    from infra.datasets.datasets import Datasets
    from training.tabular import feast as put_views

    with opened() as parts:
        datasets = Datasets(parts.artifacts)
        with waiting("reading every row"):
            stored = put_views.put_all(repository, views, parts.artifacts)
        rows = [_row(each, datasets.describe(str(each))) for each in stored]
    if json:
        print_json(rows)
    for row in [] if json else rows:
        say(f"{row['reference']}  {row['rows']} rows, {row['columns']} columns  {row['digest']}")


@app.command("list")
def list_datasets(json: Json = False) -> None:
    """List the newest version of every dataset."""
    from infra.datasets.datasets import Datasets

    with opened() as parts:
        datasets = Datasets(parts.artifacts)
        rows = [_row(found, datasets.describe(str(found))) for found in datasets.names()]
    if json:
        print_json(rows)
    elif rows:
        table = [
            (row["reference"], row["rows"], row["columns"], row["format"], " ".join(row["splits"]))
            for row in rows
        ]
        columns = ("reference", "rows", "columns", "format", "splits")
        print_table(columns, table, numbers=columns[1:3])
    else:
        note("No datasets; `ragstone datasets put PATH NAME` stores one")


@app.command("show")
def show(
    reference: Ref,
    split: SplitName = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Everything about one column.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the columns of a dataset and their statistics."""
    from infra.datasets.datasets import Datasets

    with opened() as parts:
        datasets = Datasets(parts.artifacts)
        found = datasets.find(reference)
        description = datasets.describe(str(found))
    profile = description.of(split)
    columns = profile.columns if column is None else (profile.column(column),)
    if json:
        print_json({**_row(found, description), "profile": list(columns)})
    elif column is not None:
        print_column(columns[0])
    else:
        splits = ", ".join(f"{name} {part.rows}" for name, part in description.splits.items())
        say(f"{found}  {found.digest}")
        say(f"{profile.rows} rows ({splits}), {description.format}")
        heading = ("column", "type", "nulls", "distinct", "minimum", "median", "maximum", "top")
        print_table(heading, map(summary, columns), numbers=heading[2:4])


@app.command("diff")
def diff(
    before: Ref,
    after: Annotated[str, typer.Argument(metavar="REFERENCE", help="What it became.")],
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Tells which rows are the same; may be repeated."),
    ] = None,
    split: SplitName = None,
    examples: Annotated[int, typer.Option(min=0, help="Rows of each sort to show.")] = 3,
    json: Json = False,
) -> None:
    """Compare two datasets: columns, rows, and how far each column's distribution moved."""
    from infra.datasets.datasets import Datasets

    with opened() as parts, waiting("comparing rows"):
        found = Datasets(parts.artifacts).difference(
            before, after, key=key or (), split=split, examples=examples
        )
    if json:
        print_json(as_json(found))
    else:
        print_difference(found)


@app.command("head")
def head(
    reference: Ref,
    count: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many.")] = 10,
    split: SplitName = None,
    json: Json = False,
) -> None:
    """Print the first rows."""
    from infra.datasets.datasets import Datasets

    with opened() as parts:
        datasets = Datasets(parts.artifacts)
        rows = datasets.head(reference, count, split=split)
        columns = datasets.describe(reference).columns
    if json:
        print_json(as_json(rows))
    else:
        print_table(columns, ([cell(row[name]) for name in columns] for row in rows))


def _source(given: Sequence[str]) -> Any:
    """Return paths, or a mapping from splits to paths if they are of the form `SPLIT=PATH`."""
    named = [("", "", text) if Path(text).exists() else text.rpartition("=") for text in given]
    if all(split for split, _, _ in named):
        if len({split for split, _, _ in named}) < len(named):
            raise typer.BadParameter("a split is given twice; put its files into a folder")
        return {split: Path(path) for split, _, path in named}
    if any(split for split, _, _ in named):
        raise typer.BadParameter("name the split of every path, or of none")
    paths = [Path(path) for _, _, path in named]
    return paths if len(paths) > 1 else paths[0]


def _row(reference: Reference, description: Description) -> dict[str, Any]:
    return {
        "reference": str(reference),
        "digest": reference.digest,
        "rows": description.rows,
        "columns": len(description.schema),
        "format": description.format,
        "splits": {name: split.rows for name, split in description.splits.items()},
        "schema": [column.as_dict() for column in description.schema],
    }
