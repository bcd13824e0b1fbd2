"""`ragstone train merge`, `compress` and `export`: other forms of a tuned model, each compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest
from service.cli.output import Json, note, print_json, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.models.model_forms import Formed, Work
    from service.wiring import Components
    from training.specification.delivery import Compress

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
        str | None,
        typer.Option(
            help="int8: weights in eight bits; w8a8: activations as well; w4a16: weights in four. "
            "What is left out is said by `compress` of the specification.",
            show_default="int8",
        ),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help="Inputs that share a scale in w4a16.", show_default="128"),
    ] = None,
    max_perplexity_ratio: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="Of the rows' perplexity after to that before.", show_default="1.05"
        ),
    ] = None,
    name: Name = None,
    json: Json = False,
) -> None:
    """Store the weights of a whole model in eight or four bits, and keep that as model/NAME.

    Nothing is kept if perplexity grows by more, or it does not pass the specification's suites.
    """
    from service.models import model_forms

    given = {
        "scheme": scheme,
        "group_size": group_size,
        "max_perplexity_ratio": max_perplexity_ratio,
    }
    with opened() as parts:
        work = _work(parts, spec)
        how = _asked(work.spec.compress, {k: v for k, v in given.items() if v is not None})
        _print(model_forms.compress(work, model, how, name=name), json=json)


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


def _asked(planned: Compress | None, given: Mapping[str, object]) -> Compress:
    """Return what a specification says of a compression, and what was given instead."""
    from training.compressing import PACKAGES
    from training.spec import as_json, check
    from training.specification.delivery import Compress

    scheme = given.get("scheme")
    if scheme is not None and scheme not in PACKAGES:
        raise InvalidRequest(f"No scheme {scheme!r}; there are {', '.join(PACKAGES)}")
    said = as_json(planned or Compress())
    if scheme not in {None, said["scheme"]}:
        del said["group_size"]  # of the scheme that was planned
    return check(Compress, {**said, **given}, source="compress")


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
