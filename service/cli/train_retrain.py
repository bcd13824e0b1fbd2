"""`ragstone train retrain`: retrains an adapter on what people corrected, and lets gates decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.output import Json, note, print_json, printable, say
from service.cli.session import opened


def retrain(
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="The specification of a retraining, in YAML.")
    ],
    cause: Annotated[
        str | None, typer.Option(help="Why, in words; kept with the evidence.")
    ] = None,
    evidence: Annotated[
        str | None, typer.Option(metavar="ARTIFACT", help="Of an alarm that led to it.")
    ] = None,
    outcome: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what became of it here, as JSON.")
    ] = None,
    smoke: Annotated[bool, typer.Option(help="Try a few steps before the run begins.")] = True,
    json: Json = False,
) -> None:
    """Retrain an adapter; it takes over if it is surely better and forgets nothing."""
    import orjson

    from service.models import adapter_retraining
    from training.retrained import described

    why: dict[str, Any] = {"reason": cause, "evidence": evidence}
    why = {key: value for key, value in why.items() if value is not None}
    with opened() as parts:
        result = adapter_retraining.run(parts, spec, cause=why, note=note, smokes=smoke)
    told = described(result)
    if outcome is not None:
        outcome.parent.mkdir(parents=True, exist_ok=True)
        outcome.write_bytes(orjson.dumps(told))
    if json:
        print_json(told)
        return
    say(f"{result.decision}: {printable('; '.join(result.reasons))}")
    for each in result.answers:
        note(f"{each.name}: {printable(each.reason)}")
    note(f"kept as {result.evidence}")
