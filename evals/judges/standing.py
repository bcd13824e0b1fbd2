"""Which judges may decide: only those that were held against people, and agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from evals.check import open_check
from evals.judges.card import Card
from evals.judges.instrument import Instrument
from evals.suite import Suite
from infra.errors import InvalidRequest

FindCard: TypeAlias = Callable[[Instrument], Card | None]


class UnprovenJudge(InvalidRequest):
    """What decides rests on a judge that nobody has held against people, or that failed."""


def require_standing(suite: Suite, metrics: Mapping[str, Any], find: FindCard) -> list[Card]:
    """See, before anything is run, that every judge that decides may; return their cards.

    A judge decides where a gate or check that blocks is on its metric, or on one that reads its
    scores. What only warns may rest on any judge.

    Raises:
        UnprovenJudge: one has no card, or its kappa may be too low; says what to do.
    """
    cards: dict[str, Card] = {}
    rubrics = {use.name: use.parameters.get("rubric") for use in suite.metrics}
    for what, kind, names in _deciding(suite):
        for name in _read(names, metrics):
            instrument = getattr(metrics[name], "instrument", None)
            if not isinstance(instrument, Instrument):
                continue
            card = find(instrument)
            objection = "nobody has held it against people"
            if card is not None:
                objection = card.objection(
                    min_kappa=suite.min_kappa, min_coverage=suite.min_coverage
                )
            if card is None or objection:
                command = instrument.command(_name(rubrics[name], instrument))
                raise UnprovenJudge(
                    f"{what} of {suite.name!r} rests on the judge {instrument.model!r} by the "
                    f"rubric {instrument.rubric.name!r} version {instrument.rubric.version}: "
                    f"{objection}. Run: {command}; or give the {kind} `action: warn`"
                )
            cards[instrument.digest] = card
    return list(cards.values())


def _deciding(suite: Suite) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield what decides, what kind it is, and the metrics that it is on."""
    for number, gate in enumerate(suite.gates, 1):
        if gate.action == "block":
            yield f"Gate {number}", "gate", (gate.metric,)
    for use in suite.checks:
        if use.action == "block":
            # A check from outside need not have what `Parameters` has.
            yield f"Check {use.name!r}", "check", getattr(open_check(use), "reads", ())


def _read(names: Sequence[str], metrics: Mapping[str, Any]) -> list[str]:
    """Return metrics with those that they read, and so on."""
    found: dict[str, None] = {}
    left = [name for name in names if name in metrics]
    while left:
        name = left.pop(0)
        if name not in found:
            found[name] = None
            left += [each for each in getattr(metrics[name], "reads", ()) if each in metrics]
    return list(found)


def _name(given: Any, instrument: Instrument) -> str:
    return given if isinstance(given, str) else instrument.rubric.name
