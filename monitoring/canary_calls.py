"""What a canary among the targets of a route did beside the one in use: failures, quality."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from sqlalchemy import Select, and_, case, distinct, false, func, not_, or_, select

from infra.database.engine import Database
from infra.database.interaction_tables import interaction as table
from infra.database.monitoring_tables import feedback

Quality: TypeAlias = Literal["feedback", "groundedness"]
_MISS = "-missed"
MISSES = f"%{_MISS}"
"""The ids of what targets failed and others were asked, as a pattern of SQL."""
LATE, BUSY = 504, 503
"""Statuses of calls of which the time was over, and that no server had a place for."""
_call, _judged = table.alias("call"), table.alias("judged")


@dataclass(frozen=True, slots=True)
class Side:
    """One of both: a target of the route, and the version that it is to be asked for."""

    upstream: str
    tag: str
    served: str
    """What the server calls it: an alias that moved is asked for the version before for a while."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls."""

    route: str
    live: Side
    """The one in use."""
    canary: Side
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
    callers: int
    """Of all rounds, by the draw; users whose draws are alike are one."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The latest round of pairs: the nth judged answer of each, from 0, bad, to 1, good."""

    pairs: tuple[tuple[float, float], ...]
    """Of the one in use, then of the canary."""
    known: int
    rounds: int
    callers: int
    """Of the one that fewer were drawn for."""


def miss_of(id_: str, number: int) -> str:
    """Return the id of a target's failure that the call of this id got over."""
    return f"{id_}-{number}{_MISS}"


def read(database: Database, wanted: Wanted, side: Side) -> Calls:
    """Return what a target did.

    The faults of callers, calls that they left or gave too little time, and servers that have too
    much to do say nothing.
    """
    found = _calls(wanted, side).with_only_columns(_call.c.status, _call.c.seconds, _call.c.draw)
    is_hurried = and_(_call.c.status == LATE, _call.c.terms == "hurried")
    found = found.where(
        or_(_call.c.status < 400, _call.c.status >= 500),
        _call.c.status != BUSY,
        not_(func.coalesce(is_hurried, false())),
    )
    with database.read() as connection:
        known, callers = connection.execute(_counts(found)).one()
        rounds = max(known - 1, 0) // wanted.round
        latest = found.order_by(_call.c.number).offset(rounds * wanted.round).limit(wanted.round)
        rows = connection.execute(latest)
        answered = tuple(Answered(row.status, row.seconds) for row in rows)
        return Calls(answered, known, rounds, callers)


def read_judged(database: Database, wanted: Wanted, quality: Quality) -> Judged:
    """Return how good both were, of requests that only one of them was asked for.

    A request counts once, by its first vote. Requests are in the order in which they were judged.
    """
    with database.read() as connection:
        counts = [
            connection.execute(_counts(_scores(wanted, side, quality))).one()
            for side in (wanted.live, wanted.canary)
        ]
        known, callers = map(min, zip(*counts, strict=True))
        rounds = max(known - 1, 0) // wanted.round
        sides = []
        for side in (wanted.live, wanted.canary):
            scores = _scores(wanted, side, quality).order_by("first")
            latest = scores.offset(rounds * wanted.round).limit(wanted.round)
            sides.append([float(row.score) for row in connection.execute(latest)])
    return Judged(tuple(zip(*sides, strict=False)), known, rounds, callers)


def _counts(found: Select[Any]) -> Select[int, int]:
    """Return how many there are, and of how many callers."""
    each = found.subquery()
    return select(func.count(), func.count(distinct(each.c.draw))).select_from(each)


def _calls(wanted: Wanted, *sides: Side) -> Select[Any]:
    """Return calls of these; whoever pins a call to a target is no one that drew it."""
    return select(_call).where(
        _call.c.at >= wanted.since,
        _call.c.kind == "completion",
        _call.c.model == wanted.route,
        _call.c.source == "upstream",
        _call.c.terms.is_distinct_from("pinned"),
        or_(
            *(
                and_(
                    _call.c.upstream == side.upstream,
                    _call.c.tag == side.tag,
                    _call.c.served == side.served,
                )
                for side in sides
            )
        ),
    )


def _scores(wanted: Wanted, side: Side, quality: Quality) -> Select[Any]:
    """Return the score of each request, and `first`, which says when it was known.

    Clients choose the ids of requests: only a tenant's own are its requests.
    """
    both = _calls(wanted, wanted.live, wanted.canary).where(_call.c.request_id.is_not(None))
    if quality == "groundedness":
        judged = both.join(
            _judged,
            and_(
                _judged.c.request_id == _call.c.request_id,
                _judged.c.tenant.is_not_distinct_from(_call.c.tenant),
                _judged.c.at >= wanted.since,
                _judged.c.groundedness.is_not(None),
            ),
        )
        first, score = func.min(_judged.c.number), func.min(_judged.c.groundedness)
        return _of_one(judged, side.tag, first).add_columns(score.label("score"))
    is_vote = and_(feedback.c.interaction_id == _call.c.id, feedback.c.kind == "thumbs")
    # Without a vote, too: a request that both had a part in has one at most of the two.
    votes = both.outerjoin(feedback, is_vote)
    earliest = _of_one(votes, side.tag, func.min(feedback.c.number)).subquery()
    vote = feedback.alias("vote")
    return select(
        earliest.c.first,
        earliest.c.draw,
        case((vote.c.value == "up", 1.0), else_=0.0).label("score"),
    ).join(vote, vote.c.number == earliest.c.first)


def _of_one(found: Select[Any], tag: str, first: Any) -> Select[Any]:
    """Keep requests that one target alone was asked for, and that it is."""
    return (
        found.with_only_columns(first.label("first"), func.min(_call.c.draw).label("draw"))
        .group_by(_call.c.request_id, _call.c.tenant)
        .having(func.min(_call.c.tag) == tag, func.max(_call.c.tag) == tag)
    )
