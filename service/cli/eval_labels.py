"""`ragstone eval labels`: labels that are probably wrong, and how far annotators agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import NotFound
from service.cli.output import Json, print_json, print_table, say

if TYPE_CHECKING:
    from evals.label_files import Inspection, Pair


def labels(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines, CSV or Parquet.")],
    label: Annotated[str, typer.Option(metavar="COLUMN", help="Holds the label.")] = "label",
    probabilities: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Holds a mapping from labels to probabilities, by a model that was not trained "
            "on the row.",
        ),
    ] = "probabilities",
    annotator: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Holds the labels of one annotator; give several."),
    ] = None,
    id_: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="Tells rows apart; else their number.")
    ] = "id",
    most: Annotated[int, typer.Option(min=0, help="Doubtful rows to show, worst first.")] = 25,
    json: Json = False,
) -> None:
    """Find labels that are probably wrong, and say how far those who gave them agree.

    Wrong ones are found by confident learning (cleanlab) from a model's probabilities. Agreement
    beyond chance is Krippendorff's alpha of all annotators, and Cohen's kappa of each two.
    """
    from evals.cases import rows_of
    from evals.label_files import Columns, inspect

    if not file.is_file():
        raise NotFound(
            "file of labels", str(file), among=[str(one) for one in file.parent.glob("*")]
        )
    columns = Columns(id_, label, probabilities, tuple(annotator or ()))
    found = inspect(rows_of(file), columns)
    if json:
        print_json(found)
    else:
        _print(found, most)


def _print(found: Inspection, most: int) -> None:
    if found.suspects[:most]:
        print_table(
            ("row", "label", "rather", "fits"),
            [
                (each.row, each.label, each.suggested, f"{each.quality:.3f}")
                for each in found.suspects[:most]
            ],
            numbers=("fits",),
        )
    if found.share is not None:
        share = found.share
        say(
            f"{len(found.suspects):,} of {found.rows:,} labels are doubtful: "
            f"{share.estimate:.1%} ({share.low:.1%} to {share.high:.1%})",
            style="bold",
        )
    if found.pairs:
        columns = ("annotators", "rows", "same", "kappa", "between", "as a judge")
        print_table(
            columns, [_row(pair) for pair in found.pairs], numbers=("rows", "same", "kappa")
        )
        alpha = "is not defined" if found.alpha is None else f"{found.alpha:.3f}"
        say(f"Krippendorff's alpha {alpha}", style="bold")


def _row(pair: Pair) -> tuple[str, ...]:
    names, found = f"{pair.first}, {pair.second}", pair.agreement
    if found is None:
        return names, str(pair.rows), "-", "-", "kappa is not defined", "-"
    kappa = found.kappa
    return (
        names,
        str(pair.rows),
        f"{found.share:.1%}",
        f"{kappa.estimate:.3f}",
        f"{kappa.low:.3f} to {kappa.high:.3f}",
        "good enough" if found.lets_gate() else "not yet",
    )
