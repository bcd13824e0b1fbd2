"""`ragstone models compare`: how a challenger stands, and what follows by the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from evals.challenge import Measure
    from service.models.comparing import Comparison, Standing


def compare(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Of `[models.challengers.NAME]`.")],
    decide: Annotated[
        bool,
        typer.Option("--decide", help="Promote or roll back, where rules and settings say so."),
    ] = False,
    json: Json = False,
) -> None:
    """Compare a challenger with the version in use, by what both predicted in production."""
    from infra import classical
    from service.models import comparing

    name = model.removeprefix(f"{classical.KIND}/")
    with opened() as parts:
        found = comparing.decide(parts, name) if decide else comparing.compare(parts, name)
    if json:
        print_json(comparing.told(found))
    else:
        _print(found)


def print_measures(measures: Sequence[Measure]) -> None:
    """Print what is sure of each measure."""
    rows = [
        [
            each.name,
            each.requests,
            "-" if each.interval is None else f"{each.interval.estimate:.4g}",
            "-" if each.interval is None else f"{each.interval.low:.4g}",
            "-" if each.interval is None else f"{each.interval.high:.4g}",
            "-" if each.limit is None else f"{each.limit:g}",
            each.verdict,
        ]
        for each in measures
    ]
    print_table(("measure", "requests", "is", "low", "high", "rule", "verdict"), rows)


def _print(found: Comparison) -> None:
    print_measures(found.measures)
    columns = ("version", "loss", "answered", "median s", "aside", "median s aside")
    print_table(columns, [_row(found.live), _row(found.challenger)])
    note(f"{found.requests:,} requests, {found.labelled:,} with a label")
    say(f"{found.done or found.decision}: {found.reason}")
    if found.evidence is not None:
        note(f"evidence {found.evidence}")


def _row(standing: Standing) -> list[str]:
    told, aside = standing.told, standing.aside
    numbers = [standing.loss, told.requests, told.median, aside.requests, aside.median]
    return [standing.version, *("-" if each is None else f"{each:.4g}" for each in numbers)]
