"""Which judges may decide: only those that were held against people, and agreed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from evals.judges.card import Card
from evals.judges.instrument import Instrument
from evals.suite import Suite
from infra.errors import InvalidRequest

FindCard: TypeAlias = Callable[[Instrument], Card | None]


class UnprovenJudge(InvalidRequest):
    """A gate that decides rests on a judge that nobody has held against people, or that failed."""


def require_standing(suite: Suite, metrics: Mapping[str, Any], find: FindCard) -> list[Card]:
    """See, before anything is run, that every judge that decides a gate may; return their cards.

    A gate that only warns may rest on any judge.

    Raises:
        UnprovenJudge: one has no card, or its kappa may be too low; says what to do.
    """
    cards: dict[str, Card] = {}
    names = {use.name: use.parameters.get("rubric") for use in suite.metrics}
    for number, gate in enumerate(suite.gates, 1):
        instrument = getattr(metrics[gate.metric], "instrument", None)
        if gate.action != "block" or not isinstance(instrument, Instrument):
            continue
        card = find(instrument)
        objection = "nobody has held it against people"
        if card is not None:
            objection = card.objection(min_kappa=suite.min_kappa, min_coverage=suite.min_coverage)
        if card is None or objection:
            command = instrument.command(_name(names[gate.metric], instrument))
            raise UnprovenJudge(
                f"Gate {number} of {suite.name!r} rests on the judge {instrument.model!r} by the "
                f"rubric {instrument.rubric.name!r} version {instrument.rubric.version}: "
                f"{objection}. Run: {command}; or give the gate `action: warn`"
            )
        cards[instrument.digest] = card
    return list(cards.values())


def _name(given: Any, instrument: Instrument) -> str:
    return given if isinstance(given, str) else instrument.rubric.name
