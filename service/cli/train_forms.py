"""`ragstone train merge`, `compress` and `export`: other forms of a tuned model, each compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest
from service.cli.output import Json, note, print_json, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.models.model_forms import Formed, Work
    from service.wiring import Components

MOST = 1.05
Spec = Annotated[
    Path, typer.Argument(metavar="SPEC", help="The specification that it was trained by.")
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A whole model: a folder, or such as model/NAME@v1.")
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of model/NAME; else of what it is made from.")
]


def merge(
    spec: Spec,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="ADAPTER", help="Such as adapter/NAME@v3; else the one registered."),
    ] = None,
    name: Name = None,
    json: Json = False,
) -> None:
    """Add an adapter to the weights of its base, and keep the sum as model/NAME, in safetensors.

    Nothing is kept if the sum says something else, or does not pass the specification's suites.
    """
    from service.models import model_forms

    with opened() as parts:
        _print(model_forms.merge(_work(parts, spec), adapter=adapter, name=name), json=json)


def compress(
    spec: Spec,
    model: Model,
    scheme: Annotated[
        str, typer.Option(help="int8: weights in eight bits; w8a8: activations as well.")
    ] = "int8",
    max_perplexity_ratio: Annotated[
        float, typer.Option(min=1.0, help="Of the rows' perplexity after to that before.")
    ] = MOST,
    name: Name = None,
    json: Json = False,
) -> None:
    """Store the weights of a whole model in eight bits, and keep that as model/NAME.

    Nothing is kept if perplexity grows by more, or it does not pass the specification's suites.
    """
    from service.models import model_forms
    from training.compressing import SCHEMES, Compression

    if scheme not in SCHEMES:
        raise InvalidRequest(f"No scheme {scheme!r}; there are {', '.join(SCHEMES)}")
    how = Compression(scheme, max_perplexity_ratio)
    with opened() as parts:
        _print(model_forms.compress(_work(parts, spec), model, how, name=name), json=json)


def export(
    spec: Spec,
    model: Model,
    format_: Annotated[str, typer.Option("--format", help="A format, such as onnx.")] = "onnx",
    cache: Annotated[
        bool, typer.Option(help="Keep keys and values, so that a token is not read again.")
    ] = True,
    name: Name = None,
    json: Json = False,
) -> None:
    """Write a whole model in another format, and keep that as model/NAME.

    Nothing is kept if the program that runs the format says something else of it.
    """
    from service.models import model_forms

    with opened() as parts:
        work = _work(parts, spec)
        _print(model_forms.export(work, model, format_, cache=cache, name=name), json=json)


def _work(parts: Components, spec: Path) -> Work:
    from service.models.model_forms import Work
    from training.spec import read

    return Work(parts, read(spec), spec.absolute().parent, note)


def _print(made: Formed, *, json: bool) -> None:
    if json:
        print_json({"model": str(made.reference), "digest": made.reference.digest, **made.card})
        return
    say(str(made.reference))
    parity = made.card["parity"]
    note(
        f"a logit differs by {parity['max_difference']:.3g} at most, {parity['same_greedy']} of "
        f"{parity['rows']} rows are gone on with alike, perplexity "
        f"{parity['perplexity_before']:.4g} -> {parity['perplexity_after']:.4g}"
    )
