"""The rerankers of single collections: opened once, and changed while it runs as an alias moves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.errors import RagstoneError
from service import stored_models

if TYPE_CHECKING:
    from infra.retrieval_settings import Reranking
    from retrieval.rerankers import Reranker
    from service.wiring import Components

FOLLOWED_SECONDS = 5.0
"""How long an alias that was moved may go unseen."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    reranker: Reranker
    model: str
    """Pinned, where it is an artifact; else as the settings say."""
    looked_at: float


class Rerankers:
    """Finds the reranker of a collection; safe to share between threads."""

    def __init__(
        self,
        parts: Components,
        settings: Mapping[str, Reranking],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._clock = clock
        self._opening = threading.Lock()
        self._opened: dict[str, _Open] = {}

    def of(self, collection: str) -> Reranker:
        """Return the reranker of a collection of that name.

        An alias that cannot be followed any more leaves the one it led to.

        Raises:
            NotFound: the settings name an artifact that is not there.
            InvalidConfiguration: there is no such model.
        """
        chosen = self._settings.get(collection)
        if chosen is None:
            return self._parts.reranker
        now = self._clock()
        known = self._opened.get(collection)
        if known is not None and now - known.looked_at < FOLLOWED_SECONDS:
            return known.reranker
        with self._opening:
            known = self._opened.get(collection)
            if known is None:
                self._opened[collection] = known = self._open(chosen, now)
            elif now - known.looked_at >= FOLLOWED_SECONDS:
                known.looked_at = now
                self._opened[collection] = known = self._followed(known, chosen, now)
        return known.reranker

    def _followed(self, known: _Open, chosen: Reranking, now: float) -> _Open:
        try:
            if _named(stored_models.pinned(self._parts, chosen.options)) == known.model:
                return known
            return self._open(chosen, now)
        except RagstoneError as error:
            logger.warning("reranker %s is kept: %s", known.model, error.message)
            return known

    def _open(self, chosen: Reranking, now: float) -> _Open:
        from retrieval.rerankers import open_reranker

        pinned = stored_models.pinned(self._parts, chosen.options)
        options = stored_models.located(self._parts, pinned)
        return _Open(open_reranker(chosen.reranker, **options), _named(pinned), now)


def _named(options: Mapping[str, object]) -> str:
    return str(options.get(stored_models.OPTION))
