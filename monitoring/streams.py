"""Sequential detectors over what comes in: looked at as often as one likes, with one budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from infra.errors import InvalidRequest
from monitoring.detector import is_sequential, open_detector
from monitoring.findings import Finding, Verdict, not_enough_data
from monitoring.windows import Window

Place: TypeAlias = datetime | int
"""Where rows begin: a moment, or the number of the row before the first."""
HORIZON = 10_000
"""Values that a watch is for, unless its parameters say otherwise; more than a window holds."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A column that a sequential detector follows."""

    column: str
    detector: str
    """A file of `monitoring/drift/` that watches streams."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def horizon(self) -> int:
        return int(self.parameters.get("horizon", HORIZON))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a stream stands: since when it is followed, and what was found."""

    stream: Stream
    since: Place
    """Where the watch began."""
    seen: int
    needed: int
    """Values that it took to be sure the last time; until a new watch has seen as many without an
    alarm, it says nothing of whether things are as before."""
    finding: Finding

    @property
    def verdict(self) -> Verdict:
        """Drift where it is sure, `not_enough_data` while it cannot tell whether that is over."""
        return "not_enough_data" if self.is_undecided else self.finding.verdict

    @property
    def is_undecided(self) -> bool:
        """Whether an alarm may be over, and may not."""
        return self.finding.verdict == "stable" and self.seen < self.needed

    def told(self) -> dict[str, Any]:
        """Return it as JSON values, for the report and for the next look."""
        since = self.since
        return {
            "feature": self.stream.column,
            "detector": self.stream.detector,
            "verdict": self.verdict,
            "explanation": self.finding.explanation,
            "e_value": self.finding.e_value,
            "effect": self.finding.effect,
            "effect_unit": self.finding.effect_unit,
            "alarm_at": self.finding.alarm_at,
            **({"since": since.timestamp()} if isinstance(since, datetime) else {"after": since}),
            "seen": self.seen,
            "needed": self.needed,
        }


Since = Callable[[Place, Sequence[str]], Window]
"""Some columns of everything that came since, in the order in which it was written."""


def look(
    streams: Sequence[Stream],
    reference: Window,
    since: Since,
    *,
    before: Sequence[Mapping[str, Any]],
    start: Place,
) -> list[Standing]:
    """Follow every stream up to now.

    A watch keeps nothing between two looks: all that came since it began is read again, once for
    all streams that began together, and the detector sees the first values that are not missing, as
    many as its horizon. The look after that one, and the look after an alarm, begin a new watch.

    Args:
        streams: what is followed.
        reference: with the columns of the streams.
        since: reads what came.
        before: what `told` returned at the look before; empty at the first.
        start: where a watch begins that begins now.

    Raises:
        NotFound: the reference has no such column.
        InvalidRequest: a detector compares windows.
    """
    last = {(each["feature"], each["detector"]): each for each in before}
    columns = [each.column for each in streams]
    read: dict[Place, Window] = {}
    found = []
    for stream in streams:
        begins, needed = _begins(last.get((stream.column, stream.detector)), stream, start)
        if begins not in read:
            read[begins] = since(begins, columns)
        found.append(_follow(stream, reference, read[begins], begins, needed))
    return found


def _begins(told: Mapping[str, Any] | None, stream: Stream, start: Place) -> tuple[Place, int]:
    """Return where the watch at hand began, and how many values the one before it needed."""
    if told is None:
        return start, 0
    if told["alarm_at"] is not None:
        return start, int(told["alarm_at"])
    # What is over is over: a watch that lasted without an alarm clears the one before.
    needed = int(told["needed"]) if told["seen"] < told["needed"] else 0
    if told["seen"] >= stream.horizon:
        return start, needed
    if isinstance(start, datetime):
        # Without it, windows were so many rows before.
        since = told.get("since")
        return start if since is None else datetime.fromtimestamp(since, start.tzinfo), needed
    return int(told.get("after", start)), needed


def _follow(
    stream: Stream, reference: Window, window: Window, since: Place, needed: int
) -> Standing:
    detector = open_detector(stream.detector, dict(stream.parameters))
    if not is_sequential(detector):
        raise InvalidRequest(
            f"{stream.detector!r} compares windows; choose a detector that watches streams"
        )
    begun = detector.watch(reference.column(stream.column))
    if isinstance(begun, Finding):
        return Standing(stream, since, 0, needed, begun)
    if stream.column not in window.names:
        nothing = not_enough_data(stream.detector, "Nothing that came has such a column")
        return Standing(stream, since, 0, needed, nothing)
    present = np.flatnonzero(~window.column(stream.column).is_missing())
    first = present[: stream.horizon]  # what its budget of false alarms is for
    values = window.take(first).column(stream.column)
    return Standing(stream, since, first.size, needed, begun.update(values))
