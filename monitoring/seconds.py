"""A histogram that takes what was observed together in one step."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from prometheus_client import Histogram


class Seconds(Histogram):
    """Of prometheus_client, whose `observe` costs three microseconds for each amount."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observe amounts, without exemplars."""
        self._sum.inc(sum(amounts))
        places = Counter(bisect_left(self._upper_bounds, each) for each in amounts)
        for place, number in places.items():
            self._buckets[place].inc(number)
