"""The rerankers of single collections: opened once, and changed while it runs as an alias moves."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from infra.errors import InvalidConfiguration, RagstoneError, first_line
from service import stored_models

if TYPE_CHECKING:
    from infra.retrieval_settings import Reranking
    from retrieval.rerankers import Reranker
    from service.wiring import Components

FOLLOWED_SECONDS = 5.0
"""How long an alias that was moved may go unseen."""

REFUSED_SECONDS = 60.0
"""After which a model that did not load is tried again: a full disk may have been the reason."""
PROBE = ("What is ragstone?", ["A kind of limestone."])

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Open:
    reranker: Reranker
    model: str
    """Pinned, where it is an artifact; else as the settings say."""
    looked_at: float
    is_looked_past: bool = False
    """Whether some search opens what may come next; others go on with this one."""
    refused: tuple[str, float] | None = None
    """The model that could not take its place, and when."""

    def has_refused(self, model: str, now: float) -> bool:
        if self.refused is None or self.refused[0] != model:
            return False
        return now - self.refused[1] < REFUSED_SECONDS


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

        An alias that cannot be followed any more, or leads to a model that does not load, leaves
        the one it led to.

        Raises:
            NotFound: the settings name an artifact that is not there.
            InvalidConfiguration: there is no such model.
        """
        chosen = self._settings.get(collection)
        if chosen is None:
            return self._parts.reranker
        now = self._clock()
        with self._opening:
            known = self._opened.get(collection)
            if known is None:
                self._opened[collection] = known = self._open(chosen, now)
            if known.is_looked_past or now - known.looked_at < FOLLOWED_SECONDS:
                return known.reranker
            known.looked_at, known.is_looked_past = now, True
        found = known
        try:
            found = self._followed(known, chosen, now)
        finally:
            with self._opening:
                known.is_looked_past = False
                self._opened[collection] = found
        return found.reranker

    def prove(self) -> None:
        """Open all that the settings name, and have each rank something, before anybody searches.

        Raises:
            InvalidConfiguration: one is not there, does not load, or cannot rank.
        """
        named: dict[str, Callable[[], Reranker]] = {"reranker": lambda: self._parts.reranker}
        for collection in self._settings:
            named[f"rerankers.{collection}"] = partial(self.of, collection)
        for name, opened in named.items():
            try:
                probe(opened())
            except RagstoneError as error:
                raise InvalidConfiguration(f"retrieval.{name}: {error.message}") from error
            except Exception as error:  # it can be broken in any way
                why = first_line(error) or type(error).__name__
                raise InvalidConfiguration(f"retrieval.{name}: {why}") from error

    def _followed(self, known: _Open, chosen: Reranking, now: float) -> _Open:
        """Return what the alias leads to once it has ranked something; else what there is."""
        wanted = known.model
        try:
            wanted = _named(stored_models.pinned(self._parts, chosen.options))
            if wanted == known.model or known.has_refused(wanted, now):
                return known
            found = self._open(chosen, now)
            probe(found.reranker)
        except Exception as error:  # noqa: BLE001  it can be broken in any way
            logger.warning("reranker %s is kept: %s", known.model, first_line(error))
            known.refused = (wanted, now)
            return known
        return found

    def _open(self, chosen: Reranking, now: float) -> _Open:
        from retrieval.rerankers import open_reranker

        pinned = stored_models.pinned(self._parts, chosen.options)
        options = stored_models.located(self._parts, pinned)
        return _Open(open_reranker(chosen.reranker, **options), _named(pinned), now)


def probe(reranker: Reranker) -> None:
    """Rank something: weights are loaded by the first use.

    Raises:
        InvalidConfiguration: what comes out is no number.
        Exception: whatever the library raises that loads it.
    """
    question, texts = PROBE
    scores = reranker.score(question, texts)
    if scores is not None and not all(map(math.isfinite, scores)):
        raise InvalidConfiguration("its scores are no numbers; name another model")


def _named(options: Mapping[str, object]) -> str:
    return str(options.get(stored_models.OPTION))
