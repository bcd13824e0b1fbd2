"""Names that may be labels: those that were seen first keep theirs, later ones are `other`."""

from __future__ import annotations

OTHER = "other"


class Bounded:
    """Keeps the series of a metric few, whatever callers name.

    >>> names = Bounded(1)
    >>> names.bounded("a"), names.bounded("b"), names.bounded("a")
    ('a', 'other', 'a')
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()

    def bounded(self, name: str) -> str:
        """Return the name, or `other` once there are enough."""
        if name in self._names:
            return name
        if len(self._names) < self._most:
            self._names.add(name)
            return name
        return OTHER
