"""What a canary among the targets of a route did beside the one in use: failures, quality."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Select, case, func, or_, select

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback

Quality: TypeAlias = Literal["feedback", "groundedness"]
_call, _judged = table.alias("call"), table.alias("judged")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls."""

    route: str
    live: str
    """The tag of the target in use."""
    canary: str
    since: datetime
    round: int
    """Calls that are looked at together, and judged ones."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that a target was asked."""

    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Calls:
    """The latest round of a target's calls, in the order in which they were written down."""

    calls: tuple[Answered, ...]
    known: int
    """Of all rounds."""
    rounds: int
    """That are full and over."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The latest round of pairs: the nth judged answer of each, from 0, bad, to 1, good."""

    pairs: tuple[tuple[float, float], ...]
    """Of the one in use, then of the canary."""
    known: int
    rounds: int


def read(database: Database, wanted: Wanted, tag: str) -> Calls:
    """Return what a target did; the faults of callers, and calls that they left, say nothing."""
    found = _calls(wanted, tag).with_only_columns(_call.c.status, _call.c.seconds)
    found = found.where(or_(_call.c.status < 400, _call.c.status >= 500))
    with database.read() as connection:
        counted = select(func.count()).select_from(found.subquery())
        known = int(connection.execute(counted).scalar_one())
        rounds = max(known - 1, 0) // wanted.round
        latest = found.order_by(_call.c.number).offset(rounds * wanted.round).limit(wanted.round)
        rows = connection.execute(latest)
        return Calls(tuple(Answered(*row) for row in rows), known, rounds)


def read_judged(database: Database, wanted: Wanted, quality: Quality) -> Judged:
    """Return how good both were, of requests that only one of them was asked for.

    A request counts once, by its first vote. Requests are in the order in which they were judged.
    """
    with database.read() as connection:
        counts = [
            int(
                connection.execute(
                    select(func.count()).select_from(_scores(wanted, tag, quality).subquery())
                ).scalar_one()
            )
            for tag in (wanted.live, wanted.canary)
        ]
        known = min(counts)
        rounds = max(known - 1, 0) // wanted.round
        sides = []
        for tag in (wanted.live, wanted.canary):
            scores = _scores(wanted, tag, quality).order_by("first")
            latest = scores.offset(rounds * wanted.round).limit(wanted.round)
            sides.append([float(row.score) for row in connection.execute(latest)])
    return Judged(tuple(zip(*sides, strict=False)), known, rounds)


def _calls(wanted: Wanted, *tags: str) -> Select[Any]:
    return select(_call).where(
        _call.c.at >= wanted.since,
        _call.c.kind == "completion",
        _call.c.model == wanted.route,
        _call.c.tag.in_(tags),
        _call.c.source == "upstream",
    )


def _scores(wanted: Wanted, tag: str, quality: Quality) -> Select[Any]:
    """Return the score of each request, and `first`, which says when it was known."""
    both = _calls(wanted, wanted.live, wanted.canary).join(
        _judged, _judged.c.request_id == _call.c.request_id
    )
    if quality == "groundedness":
        both = both.where(_judged.c.groundedness.is_not(None))
        first, score = func.min(_judged.c.number), func.min(_judged.c.groundedness)
        return _of_one(both, tag, first).add_columns(score.label("score"))
    votes = both.join(feedback, feedback.c.interaction_id == _judged.c.id).where(
        feedback.c.kind == "thumbs"
    )
    earliest = _of_one(votes, tag, func.min(feedback.c.number)).subquery()
    vote = feedback.alias("vote")
    return select(
        earliest.c.first, case((vote.c.value == "up", 1.0), else_=0.0).label("score")
    ).join(vote, vote.c.number == earliest.c.first)


def _of_one(found: Select[Any], tag: str, first: Any) -> Select[Any]:
    """Keep requests that one target alone was asked for, and that it is."""
    return (
        found.with_only_columns(first.label("first"))
        .group_by(_call.c.request_id)
        .having(func.min(_call.c.tag) == tag, func.max(_call.c.tag) == tag)
    )
