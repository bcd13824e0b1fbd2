"""`ragstone eval diagnose`: where the error of a model comes from, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest
from service.cli.output import Json, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from evals.diagnosis import Diagnosis, Losses


def diagnose(
    train: Annotated[
        str, typer.Option(metavar="SET", help="What the model was trained on: a file, or a slice.")
    ],
    train_val: Annotated[
        str, typer.Option(metavar="SET", help="Held out, of the distribution of training.")
    ],
    test_val: Annotated[
        str,
        typer.Option(
            metavar="SET", help="Held out, of the distribution that will come; chosen by."
        ),
    ],
    test: Annotated[str, typer.Option(metavar="SET", help="Of the same, looked at once.")],
    evaluation: Annotated[
        str | None,
        typer.Argument(metavar="[EVALUATION]", help="Whose slices the sets are; else files."),
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(metavar="SET", help="Of the best there is, such as people; or its error."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Of the evaluation.")] = None,
    column: Annotated[str, typer.Option(help="Of the files, which holds the errors.")] = "error",
    json: Json = False,
) -> None:
    """Take the error on a test set apart: bias, variance, shift, validation overfitting.

    A set is a file with a column of errors (1 or 0 for wrong or right, or any loss), or a slice of
    a stored evaluation. The parts add up to the error; their intervals hold together at 95 %.
    """
    from evals.diagnosis import diagnose as take_apart

    losses = _reader(evaluation, metric, column)
    found = take_apart(
        train=losses(train),
        train_validation=losses(train_val),
        validation=losses(test_val),
        test=losses(test),
        best=None if best is None else _best(best, losses),
    )
    if json:
        print_json(_as_dict(found))
    else:
        _print(found)


def _reader(evaluation: str | None, metric: str | None, column: str) -> Callable[[str], Losses]:
    """Return what reads a set by its name."""
    from evals import losses
    from service.evaluation import evaluating

    if evaluation is None:
        if metric is not None:
            raise InvalidRequest("--metric is of an evaluation; of files, give the --column")
        return lambda name: losses.of_file(Path(name), column=column)
    if metric is None:
        raise InvalidRequest("Say which metric of the evaluation is meant with --metric")
    with opened() as parts:
        found = evaluating.find(parts, evaluation).evaluation
    return lambda name: losses.of_slice(found, metric, name)


def _best(given: str, losses: Callable[[str], Losses]) -> Losses | float:
    try:
        return float(given)
    except ValueError:
        return losses(given)


def _as_dict(found: Diagnosis) -> dict[str, object]:
    return {
        "error": found.error,
        "parts": [
            {
                "source": part.source,
                "share": part.share,
                "sure": part.is_sure,
                "advice": part.advice,
            }
            for part in found.parts
        ],
        "knows_the_best": found.knows_the_best,
        "summary": found.summary,
    }


def _print(found: Diagnosis) -> None:
    rows = [
        (
            part.source.value,
            f"{part.share.estimate:.4g}",
            f"{part.share.low:.4g} to {part.share.high:.4g}",
            part.advice if part.is_sure else "-",
        )
        for part in found.parts
    ]
    print_table(("part", "error", "between", "what helps"), rows, numbers=("error",))
    say()
    if not found.knows_the_best:
        say("avoidable bias includes what nobody gets right; --best takes it out", style="dim")
    say(found.summary, style="bold")
