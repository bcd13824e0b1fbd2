"""`ragstone feedback`: votes, corrections and labels on answers and predictions."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from service.cli.output import Json, print_json, say
from service.cli.session import opened


def feedback(
    interaction: Annotated[str, typer.Argument(help="Id of an interaction or of a request.")],
    kind: Annotated[
        Literal["up", "down", "correction", "label"], typer.Argument(help="What is said.")
    ],
    value: Annotated[
        str | None, typer.Argument(help="The label, the text that is right, or a remark.")
    ] = None,
    json: Json = False,
) -> None:
    """Say what an answer was worth, or what would have been right; labels may come late."""
    from monitoring.feedback import Statement
    from service.schemas.feedback import FeedbackOut

    if kind == "label":
        said = Statement(interaction, "label", value or "")
    elif kind == "correction":
        said = Statement(interaction, "correction", text=value)
    else:
        said = Statement(interaction, "thumbs", kind, text=value)
    with opened() as parts:
        kept = parts.feedback.add(said)
    if json:
        print_json(FeedbackOut.of(kept).model_dump())
    else:
        say(f"{'Kept' if kept.is_new else 'Was kept before'}: {kept.id}")
