"""What `retrieval.index_options` may say about the local index, and the type that follows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.errors import InvalidConfiguration

TYPES = ("auto", "exact", "hnsw", "ivf")
EXACT_BELOW = 50_000
"""Scanning as many vectors of 384 numbers takes about 2 ms; beyond that a structure pays."""
FORCED_BELOW = 1_000
"""So few are scanned in microseconds, whatever type is asked for."""


@dataclass(frozen=True, slots=True)
class Options:
    """How vectors are searched."""

    type: str = "auto"
    """`exact` scans; `hnsw` walks a graph; `ivf` looks into the nearest lists of short codes."""
    recall: float = 0.97
    """Share of the 10 nearest that has to be found, measured at every build."""
    exact_below: int | None = None
    """Rows from which a structure is built; None for 50,000, or 1,000 if the type is forced."""
    build_threads: int = 0
    """Threads of a build; 0 for one per core."""

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise InvalidConfiguration(
                f"retrieval.index_options.type is {self.type!r}; there are {', '.join(TYPES)}"
            )
        if not _is_number(self.recall) or not 0 < self.recall <= 1:
            raise InvalidConfiguration(
                f"retrieval.index_options.recall is {self.recall!r}; it has to be above 0 and at"
                " most 1"
            )
        for name, value in (
            ("exact_below", 0 if self.exact_below is None else self.exact_below),
            ("build_threads", self.build_threads),
        ):
            if not _is_number(value) or value != int(value) or value < 0:
                raise InvalidConfiguration(
                    f"retrieval.index_options.{name} is {value!r}; give a whole number from 0"
                )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Read the settings' table.

        Raises:
            InvalidConfiguration: an unknown name, or a value that makes no sense.
        """
        if unknown := sorted(given.keys() - cls.__dataclass_fields__.keys()):
            raise InvalidConfiguration(
                f"retrieval.index_options has no {', '.join(map(repr, unknown))}; the local index"
                f" knows {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**given)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Structures to try in turn until one finds enough."""
        return {"exact": (), "hnsw": ("hnsw", "ivf")}.get(self.type, ("ivf", "hnsw"))

    @property
    def smallest(self) -> int:
        """Rows that a structure is built over, at least."""
        if self.exact_below is not None:
            return max(self.exact_below, 1)
        return EXACT_BELOW if self.type == "auto" else FORCED_BELOW

    @property
    def threads(self) -> int:
        return self.build_threads or len(os.sched_getaffinity(0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
