"""Compares a challenger with the version in use by what both predicted, and acts on the rules."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evals import challenge
from infra import classical
from infra.artifacts.refs import Reference
from infra.errors import InvalidRequest, NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry
from infra.model_settings import Challenger
from monitoring.prediction_pairs import Found, Pair, Side, Wanted, read, read_labelled
from service.models import adapter_canaries, alias_moves
from service.models.alias_moves import Done, Rivals
from service.prediction.loading import described

if TYPE_CHECKING:
    from service.wiring import Components

logger = logging.getLogger(__name__)

COMPARE = "compare"
ROUND = 20_000
"""Requests that are looked at together, and requests with a label. After as many both begin anew,
so that what fails later is seen too, and no look reads more."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a version took, in seconds; None where it answered nothing."""

    requests: int
    median: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a version did."""

    version: str
    loss: float | None
    """The share that is wrong, or the mean absolute error; None without labels."""
    told: Latency
    """Where its answer was told."""
    aside: Latency
    """Where it was asked aside."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a challenger stands beside the version in use."""

    model: str
    live: Standing
    challenger: Standing
    since: datetime
    """When the later of the two aliases moved."""
    requests: int
    labelled: int
    """Requests of which a row has a label."""
    weight: float
    measures: tuple[challenge.Measure, ...]
    decision: challenge.Decision
    reason: str
    done: Done | None = None
    evidence: str | None = None
    """The artifact that the history of the alias names."""


def define(registered: Registry, parts: Components) -> None:
    """Register the job that decides on all challengers and canaries; a schedule starts it."""

    @registered.job(COMPARE, behaviour=Behaviour(steps=False, lane=COMPARE, join=True))
    def compare_all(attempt: Attempt) -> list[dict[str, Any]]:
        del attempt
        try:
            challengers = [told(each) for each in decide_all(parts)]
        finally:  # what is lost of one keeps no other from being decided
            canaries = [adapter_canaries.told(each) for each in adapter_canaries.decide_all(parts)]
        return [*challengers, *canaries]


def decide_all(parts: Components) -> list[Comparison]:
    """Decide on every challenger of the settings that there is; returns how they stand.

    Raises:
        StorageFailed: something that is stored could not be read; all others were decided on.
    """
    names = parts.settings.models.challengers
    return alias_moves.decide_each(names, partial(decide, parts), what="challenger")


def compare(parts: Components, name: str) -> Comparison:
    """Return how the challenger of a model stands; nothing moves.

    Args:
        parts: of the process.
        name: of the model, without `model/`.

    Raises:
        NotFound: the settings name no challenger of it, or an alias points at nothing.
        InvalidRequest: both aliases point at the same version, or one is of another task.
    """
    return _compare(parts, name)[0]


def decide(parts: Components, name: str) -> Comparison:
    """Compare, and promote or roll back where the rules are sure and the settings allow it.

    Raises:
        NotFound, InvalidRequest: as `compare`.
        Conflict: an alias moved meanwhile.
    """
    found, live, challenger = _compare(parts, name)
    settings = parts.settings.models.challengers[name]
    if found.decision == "promote" and settings.promote:
        done: Done = "promoted"
    elif found.decision == "roll_back" and settings.roll_back:
        done = "rolled_back"
    else:
        return found
    rivals = Rivals(live, challenger, parts.settings.models.alias, settings.alias)
    found = replace(found, done=done)
    values = {**told(found), "rules": settings.model_dump(mode="json")}
    values.pop("evidence")
    found = replace(found, evidence=alias_moves.keep(parts.artifacts, name, values, rivals))
    alias_moves.act(parts.artifacts, rivals, done, evidence=found.evidence)
    return found


def told(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return {**asdict(comparison), "since": comparison.since.isoformat()}


def _compare(parts: Components, name: str) -> tuple[Comparison, Reference, Reference]:
    options, model = parts.settings.models, f"{classical.KIND}/{name}"
    settings = options.challengers.get(name)
    if settings is None:
        raise NotFound("challenger", name, among=options.challengers, are_few=True)
    live = alias_moves.meant(parts.artifacts, model, options.alias)
    challenger = alias_moves.meant(parts.artifacts, model, settings.alias)
    if live.digest == challenger.digest:
        raise InvalidRequest(
            f"{options.alias!r} and {settings.alias!r} of {model!r} are the same version"
        )
    task = _task(parts, live)
    if task != _task(parts, challenger):
        raise InvalidRequest(f"{challenger} does not do what {live} does: {task}")
    since = max(
        parts.artifacts.history(model, alias)[0].at for alias in (options.alias, settings.alias)
    )
    parts.interactions.flush()
    wanted = Wanted(model, _served(live), _served(challenger), since, ROUND)
    asked, labelled = read(parts.database, wanted), read_labelled(parts.database, wanted)
    losses = (_Losses.of(each, is_number=task == "regression") for each in labelled.pairs)
    seen = [each for each in losses if each is not None]
    weighed = challenge.weigh(_observed(asked, labelled, seen, settings), _rules(settings))
    latest = list({each.request: each for each in seen}.values())
    pairs = asked.pairs
    comparison = Comparison(
        model,
        _standing(live, [each.live for each in pairs], [each.live for each in latest]),
        _standing(challenger, [each.challenger for each in pairs], [each.other for each in latest]),
        since,
        asked.known,
        labelled.rounds * ROUND + len(latest),
        settings.weight,
        weighed.measures,
        weighed.decision,
        weighed.reason,
    )
    return comparison, live, challenger


def _served(reference: Reference) -> str:
    return str(reference).partition("/")[2]


def _task(parts: Components, reference: Reference) -> str:
    return described(parts.artifacts, reference.pinned).task


def _rules(settings: Challenger) -> challenge.Rules:
    return challenge.Rules(
        settings.min_requests,
        settings.level,
        settings.margin,
        settings.agreement,
        settings.max_failures,
    )


@dataclass(frozen=True, slots=True)
class _Losses:
    """What a label says of both: 1 where it is wrong, or how far a number is from it."""

    request: str
    live: float
    other: float
    difference: float

    @classmethod
    def of(cls, pair: Pair, *, is_number: bool) -> _Losses | None:
        """Return None without a label, where nothing was kept, or the label is no number."""
        label, sides = pair.label, (pair.live, pair.challenger)
        if label is None:
            return None
        if any(each.prediction is None and not each.has_failed for each in sides):
            return None
        if not is_number:
            live, other = (float(_is_wrong(each, label)) for each in sides)
            return cls(pair.request, live, other, other - live)
        distances = [_distance(each, label) for each in sides]
        if any(np.isnan(each) for each in distances):
            return None
        live, other = distances
        failed = [float(each.has_failed) for each in sides]
        difference = failed[1] - failed[0] if any(failed) else challenge.relative(other, live)
        return cls(pair.request, live, other, difference)


def _is_wrong(side: Side, label: str) -> bool:
    return side.has_failed or classical.text_of(side.prediction) != label


def _distance(side: Side, label: str) -> float:
    if side.has_failed:
        return float("inf")
    try:
        return abs(float(side.prediction) - float(label))
    except ValueError:
        return float("nan")


def _observed(
    asked: Found, labelled: Found, seen: Sequence[_Losses], settings: Challenger
) -> challenge.Observed:
    most = float("inf") if settings.max_seconds is None else settings.max_seconds
    first: dict[str, float] = {}
    for each in seen:  # a label that corrects another one changes nothing that was bet on
        first.setdefault(each.request, each.difference)
    return challenge.Observed(
        agreement=list(_same(asked.pairs)),
        errors=list(first.values()),
        failures=[float(_fails(each.challenger, most)) for each in asked.pairs],
        earlier=challenge.Earlier(asked.rounds, asked.rounds * ROUND),
        earlier_labels=challenge.Earlier(labelled.rounds, labelled.rounds * ROUND),
    )


def _fails(side: Side, most: float) -> bool:
    return side.has_failed or side.seconds > most


def _same(pairs: Sequence[Pair]) -> Iterator[float]:
    for each in pairs:
        if each.live.prediction is not None and each.challenger.prediction is not None:
            yield float(classical.is_same(each.live.prediction, each.challenger.prediction))


def _standing(reference: Reference, sides: Sequence[Side], losses: Sequence[float]) -> Standing:
    known = [each for each in losses if np.isfinite(each)]
    return Standing(
        str(reference),
        float(np.mean(known)) if known else None,
        _latency([each for each in sides if each.is_told]),
        _latency([each for each in sides if not each.is_told]),
    )


def _latency(sides: Sequence[Side]) -> Latency:
    seconds = [each.seconds for each in sides if not each.has_failed]
    if not seconds:
        return Latency(0, None, None)
    median, p95 = (float(each) for each in np.quantile(seconds, [0.5, 0.95]))
    return Latency(len(seconds), median, p95)
