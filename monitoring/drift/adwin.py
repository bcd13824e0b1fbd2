"""ADWIN: keeps the longest recent stretch of a stream whose parts have one mean."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from infra.plugins import require
from monitoring.columns import EXTRA, Column
from monitoring.detector import CATEGORIES, NUMBERS, Kinds, Parameters, obstacle
from monitoring.drift import _streams
from monitoring.drift._streams import RankWatch
from monitoring.findings import Finding

NAME = "adwin"
_CLOCK = 32
"""Values between two looks; river's default."""


class Adwin(Parameters):
    """Bifet & Gavalda (SDM 2007), by river, on ranks in the reference.

    Its bound is for one look at values between 0 and 1: ranks are, and delta is the level shared
    out over the looks of a horizon.
    """

    reads: ClassVar[Kinds] = NUMBERS | CATEGORIES

    horizon: int = Field(10_000, ge=100)
    """Values within which a false alarm has probability `level` at most."""

    def watch(self, reference: Column) -> RankWatch | Finding:
        found = obstacle(NAME, reference, reference, reads=self.reads, least_rows=self.least_rows)
        if found:
            return found
        delta = self.level * _CLOCK / self.horizon
        detector: Any = require("river.drift", extra=EXTRA).ADWIN(delta=delta, clock=_CLOCK)
        return RankWatch(NAME, detector, _streams.ranking(reference), reference)


build = Adwin.model_validate
