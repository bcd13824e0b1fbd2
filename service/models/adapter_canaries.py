"""Compares a canary of an adapter with the version in use by what a route's traffic saw."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evals import challenge
from infra.errors import InvalidRequest, NotFound
from monitoring.canary_calls import Calls, Judged, Side, Wanted, read, read_judged
from service.gateway.adapter_files import served_as
from service.gateway.routing import canary_aliases
from service.models import alias_moves
from service.models.alias_moves import Done, Rivals

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from infra.gateway_settings import Canary
    from service.wiring import Components

logger = logging.getLogger(__name__)

ROUND = 20_000
"""Calls that are looked at together, and judged ones; after as many both begin anew."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a version did in the present round."""

    version: str
    requests: int
    """Of all rounds."""
    callers: int
    """Of these."""
    failures: float | None
    """The share of them; None where it was asked nothing."""
    median_seconds: float | None
    p95_seconds: float | None
    quality: float | None
    """From 0 to 1; None where nothing was judged."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a canary stands beside the version in use."""

    route: str
    live: Standing
    canary: Standing
    since: datetime
    """When the later of the two aliases moved."""
    judged: int
    """Pairs of answers, one of each, of which it is known how good they are."""
    measures: tuple[challenge.Measure, ...]
    decision: challenge.Decision
    reason: str
    done: Done | None = None
    evidence: str | None = None
    """The artifact that the history of the alias names."""


def decide_all(parts: Components) -> list[Comparison]:
    """Decide on every canary of the settings that there is; returns how they stand.

    Raises:
        StorageFailed: something could not be stored or read; all others were decided on.
    """
    names = parts.settings.gateway.canaries
    return alias_moves.decide_each(names, partial(decide, parts), what="canary")


def compare(parts: Components, route: str) -> Comparison:
    """Return how the canary of a route stands; nothing moves.

    Raises:
        NotFound: the settings name no canary of it, or an alias points at nothing.
        InvalidRequest: both aliases point at the same version.
    """
    return _compare(parts, route)[0]


def decide(parts: Components, route: str) -> Comparison:
    """Compare, and promote or roll back where the rules are sure and the settings allow it.

    Raises:
        NotFound, InvalidRequest: as `compare`.
        Conflict: an alias moved meanwhile.
    """
    found, rivals = _compare(parts, route)
    settings = parts.settings.gateway.canaries[route]
    if found.decision == "promote" and settings.promote:
        done: Done = "promoted"
    elif found.decision == "roll_back" and settings.roll_back:
        done = "rolled_back"
    else:
        return found
    found = replace(found, done=done)
    values = {**told(found), "rules": settings.model_dump(mode="json")}
    values.pop("evidence")
    evidence = alias_moves.keep(parts.artifacts, rivals.live.name, values, rivals)
    alias_moves.act(parts.artifacts, rivals, done, evidence=evidence)
    return replace(found, evidence=evidence)


def told(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return {**asdict(comparison), "since": comparison.since.isoformat()}


def _compare(parts: Components, route: str) -> tuple[Comparison, Rivals]:
    gateway, store = parts.settings.gateway, parts.artifacts
    if route not in gateway.canaries:
        raise NotFound("canary", route, among=gateway.canaries, are_few=True)
    settings, (name, used, apart) = gateway.canaries[route], canary_aliases(gateway, route)
    rivals = Rivals(
        alias_moves.meant(store, name, used), alias_moves.meant(store, name, apart), used, apart
    )
    if rivals.live.digest == rivals.other.digest:
        raise InvalidRequest(f"{used!r} and {apart!r} of {name!r} are the same version")
    since = max(store.history(name, alias)[0].at for alias in (used, apart))
    parts.interactions.flush()
    asked = {each.tag: each.upstream for each in gateway.routes[route].targets}
    wanted = Wanted(
        route,
        Side(asked[settings.live], settings.live, served_as(rivals.live)),
        Side(asked[settings.canary], settings.canary, served_as(rivals.other)),
        since,
        ROUND,
    )
    live, canary = (read(parts.database, wanted, side) for side in (wanted.live, wanted.canary))
    judged = Judged((), 0, 0, 0)
    if settings.quality is not None:
        judged = read_judged(parts.database, wanted, settings.quality)
    weighed = _weigh(canary, judged, settings)
    comparison = Comparison(
        route,
        _standing(rivals.live, live, [one for one, _ in judged.pairs], settings),
        _standing(rivals.other, canary, [other for _, other in judged.pairs], settings),
        since,
        judged.known,
        weighed.measures,
        weighed.decision,
        weighed.reason,
    )
    return comparison, rivals


def _weigh(canary: Calls, judged: Judged, settings: Canary) -> challenge.Weighed:
    rules = challenge.Rules(
        settings.min_requests,
        settings.level,
        None if settings.quality is None else settings.margin,
        None,
        settings.max_failures,
    )
    observed = challenge.Observed(
        agreement=(),
        errors=[one - other for one, other in judged.pairs],
        failures=_failures(canary, settings),
        earlier=challenge.Earlier(canary.rounds, canary.rounds * ROUND),
        earlier_labels=challenge.Earlier(judged.rounds, judged.rounds * ROUND),
    )
    weighed = challenge.weigh(observed, rules)
    failures = next(each for each in weighed.measures if each.name == challenge.FAILURES)
    is_enough = failures.requests >= settings.min_requests and failures.verdict == "holds"
    if settings.quality is None and is_enough:
        # Suites have said that it is good; traffic says that it works.
        weighed = replace(weighed, decision="promote", reason=f"{failures.requests} did not fail")
    is_judged = settings.quality is not None and failures.verdict != "breaks"
    callers = min(canary.callers, judged.callers) if is_judged else canary.callers
    if weighed.decision != "wait" and callers < settings.min_callers:
        # Bets suppose that requests are drawn apart, and those of a caller are drawn together.
        reason = f"{callers} of {settings.min_callers} callers say: {weighed.reason}"
        return replace(weighed, decision="wait", reason=reason)
    return weighed


def _failures(calls: Calls, settings: Canary) -> list[float]:
    most = float("inf") if settings.max_seconds is None else settings.max_seconds
    return [float(each.status >= 500 or each.seconds > most) for each in calls.calls]


def _standing(version: Reference, calls: Calls, quality: list[float], settings: Canary) -> Standing:
    failures = _failures(calls, settings)
    seconds = [each.seconds for each in calls.calls if each.status < 400]
    median, p95 = np.quantile(seconds, [0.5, 0.95]) if seconds else (None, None)
    return Standing(
        str(version),
        calls.known,
        calls.callers,
        float(np.mean(failures)) if failures else None,
        None if median is None else float(median),
        None if p95 is None else float(p95),
        float(np.mean(quality)) if quality else None,
    )
