"""The scorer of answers: its detector opened once, and changed while it runs as an alias moves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from infra.contracts import Answer, Groundedness
from infra.errors import InvalidConfiguration, first_line
from monitoring.groundedness import Scorer
from monitoring.grounding.detectors import Detector, open_detector
from monitoring.grounding.evidence import Evidence, Source
from service import stored_models
from service.rerankers import FOLLOWED_SECONDS, REFUSED_SECONDS

if TYPE_CHECKING:
    from infra.monitoring_settings import Groundedness as Options
    from service.wiring import Components

PROBE = "Ragstone is a kind of limestone."

logger = logging.getLogger(__name__)


class FollowedScorer:
    """Scores by the detector of the settings; several threads may ask at once, one follows."""

    def __init__(
        self,
        parts: Components,
        options: Options,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open what the settings name.

        Raises:
            NotFound: they name an artifact that is not there.
            InvalidConfiguration: there is no such detector, or it does not take its options.
        """
        self._parts = parts
        self._options = options
        self._clock = clock
        pinned = stored_models.pinned(parts, options.detector_options)
        self._scorer, self._pinned = Scorer(self._opened(pinned)), pinned
        self._looked_at = clock()
        self._refused: tuple[Mapping[str, Any], float] | None = None
        """What could not take its place, and when."""

    @property
    def is_due(self) -> bool:
        """Whether it is time to look where the alias leads."""
        is_stored = stored_models.is_stored(self._options.detector_options)
        return is_stored and self._clock() - self._looked_at >= FOLLOWED_SECONDS

    def score(self, answer: Answer) -> Groundedness:
        """Score as `Scorer` does, a whole answer by one model."""
        return self._scorer.score(answer)

    def follow(self) -> None:
        """Score by what the alias leads to now, once that has judged something.

        An alias that cannot be followed any more, or leads to a model that does not load, leaves
        the one it led to.
        """
        if not self.is_due:
            return
        self._looked_at = math.inf  # until this look is over
        wanted: Mapping[str, Any] = self._pinned
        try:
            wanted = stored_models.pinned(self._parts, self._options.detector_options)
            if wanted != self._pinned and not self._has_refused(wanted):
                detector = self._opened(wanted)
                _probe(detector)
                self._scorer, self._pinned = Scorer(detector), wanted
        except Exception as error:  # noqa: BLE001  it can be broken in any way
            kept = self._pinned[stored_models.OPTION]
            logger.warning("groundedness model %s is kept: %s", kept, first_line(error))
            self._refused = wanted, self._clock()
        finally:
            self._looked_at = self._clock()

    def _opened(self, pinned: Mapping[str, Any]) -> Detector:
        located = stored_models.located(self._parts, pinned)
        return open_detector(self._options.detector, **located)

    def _has_refused(self, wanted: Mapping[str, Any]) -> bool:
        if self._refused is None or self._refused[0] != wanted:
            return False
        return self._clock() - self._refused[1] < REFUSED_SECONDS


def _probe(detector: Detector) -> None:
    """Judge something: weights are loaded by the first use."""
    (found,) = detector.judge([PROBE], Evidence([Source(PROBE, "")]))
    if not 0 <= found.risk <= 1:
        raise InvalidConfiguration("its risks are none; name another model")
