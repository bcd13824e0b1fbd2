"""Judges' cards among the artifacts: measured, kept, and looked up before a gate rests on one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from evals import run
from evals.judges import measuring
from evals.judges.card import KIND, Card
from evals.judges.instrument import Instrument
from evals.run import Options, Plan
from evals.trial import Trial
from infra.errors import NotFound, StorageFailed

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from infra.artifacts.store import ArtifactStore
    from service.wiring import Components

FILE = "card.json"
ROWS = "rated.jsonl"
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


async def measure(
    parts: Components,
    plan: Plan,
    *,
    on_trial: Callable[[Trial], None],
) -> tuple[Card, Reference]:
    """Have a judge rate what people have labelled, and keep its card as `judge/NAME`.

    What it answered before is not asked again.

    Raises:
        InvalidRequest: it rated nothing, or every label is the same.
    """
    from service.evaluation.evaluating import opened_context

    async with opened_context(parts, plan) as context:
        context = replace(context, baseline=measuring.others(plan))
        with tempfile.TemporaryDirectory() as folder:
            options = Options(Path(folder), context=context, on_trial=on_trial)
            evaluation = await run.run(plan, options)
    card = measuring.card(plan, evaluation)
    return card, keep(parts.artifacts, card, measuring.rows(plan, evaluation))


def keep(store: ArtifactStore, card: Card, rows: list[dict[str, Any]]) -> Reference:
    """Keep a card with what it was made from as the next version of its name."""
    from infra.artifacts.publishing import Made

    kappa = card.agreement.kappa
    metadata = {
        **card.instrument.as_dict(),
        "name": card.instrument.rubric.name,
        "kappa": kappa.estimate,
        "kappa_low": kappa.low,
        "labels": card.agreement.items,
    }
    name = f"{KIND}/{card.instrument.card}"
    with store.writer(name, Made(metadata={KIND: metadata})) as draft:
        folder = Path(draft.folder)
        (folder / FILE).write_bytes(
            orjson.dumps(card.as_dict(), option=_SORTED | orjson.OPT_INDENT_2)
        )
        lines = (orjson.dumps(row, option=_SORTED, default=str) for row in rows)
        (folder / ROWS).write_bytes(b"".join(lines))
    return store.find(str(draft.reference))


def find(store: ArtifactStore, instrument: Instrument) -> tuple[Card, Reference] | None:
    """Return the newest card of a judge; None if nobody has measured it.

    Raises:
        StorageFailed: it is damaged.
    """
    try:
        found = store.find(f"{KIND}/{instrument.card}")
    except NotFound:
        return None
    card = read(store, str(found))
    if card.instrument.digest != instrument.digest:
        raise StorageFailed(
            f"{str(found)!r} is the card of another judge; remove it, and measure this one again"
        )
    return card, found


def read(store: ArtifactStore, reference: str) -> Card:
    """Return a stored card.

    Raises:
        NotFound: there is none.
        StorageFailed: it is damaged.
    """
    with store.open(reference, FILE) as stream:
        try:
            return Card.from_dict(orjson.loads(stream.read()))
        except orjson.JSONDecodeError as error:
            raise StorageFailed(f"{reference!r} cannot be read: {error}") from error


def listed(store: ArtifactStore) -> list[dict[str, Any]]:
    """Return the newest card of every judge that was measured."""
    rows = []
    for each in store.names(KIND):
        said = store.resolve(str(each)).metadata.get(KIND, {})
        keys = ("name", "model", "samples", "temperature", "labels", "kappa", "kappa_low")
        rows.append({"card": str(each), **{key: said.get(key) for key in keys}})
    return rows
