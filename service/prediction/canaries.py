"""Canary: a challenger answers a share of the callers, and the version in use wherever it fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from infra.classical import KIND
from infra.contracts import Interaction
from infra.errors import EngineTimedOut, RagstoneError
from infra.model_settings import Challenger
from monitoring.challenger_metrics import ChallengerMetrics
from monitoring.prediction_metrics import outcome_of
from service.gateway.routing import share_of
from service.prediction.columns import Table
from service.prediction.loading import Loaded
from service.prediction.models import Hosted
from service.prediction.recording import CANARY, Failed, Origin, Predicted, record_failure
from service.prediction.shadowing import Copy, Read, Shadows


class Canaries:
    """Says whom a challenger answers, and has the version that did not answer asked aside."""

    def __init__(
        self,
        settings: Mapping[str, Challenger],
        shadows: Shadows,
        *,
        metrics: ChallengerMetrics,
        add: Callable[[Interaction], None] | None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Take the settings, who asks copies, counts and keeps interactions, and a random source.

        Args:
            settings: of challengers, by the name of the model.
            shadows: asks copies.
            metrics: counts.
            add: keeps interactions.
            draw: a number from 0 to 1, whenever it is asked.
        """
        self._settings = settings
        self.shadows = shadows
        self._metrics = metrics
        self._add = add
        self._draw = draw

    def draws(self, challenger: Loaded, user: str | None) -> bool:
        """Whether the challenger answers a user: always the same of one whose name is known."""
        weight = self._settings[challenger.name].weight
        if weight == 0:
            return False
        known = f"{KIND}/{challenger.served}"
        return (self._draw() if user is None else share_of(known, user)) < weight

    async def answer(
        self,
        challenger: Hosted,
        live: Loaded,
        table: Table,
        *,
        read: Callable[[Loaded], Awaitable[Table]],
        seconds: float,
    ) -> tuple[Table, NDArray[Any]]:
        """Return what the challenger says, and the rows as it read them.

        Raises:
            RagstoneError: it said nothing in time, and the version in use has to answer.
        """
        try:
            async with asyncio.timeout(seconds):
                if not challenger.reads_like(live):
                    table = await read(challenger)
                return table, await challenger.batcher.run(table)
        except TimeoutError:
            raise EngineTimedOut(f"The canary did not answer within {seconds:g} s") from None

    def follow(
        self,
        first: Predicted,
        other: Loaded,
        failure: RagstoneError | None,
        *,
        read: Read,
        origin: Origin,
    ) -> None:
        """Have the other version asked aside, or note why it could not be what was told.

        Args:
            first: what the caller was told.
            other: the version that did not answer.
            failure: of a canary that was to answer.
            read: reads what was asked.
            origin: of the request.
        """
        name = first.loaded.name
        if failure is not None:
            self._metrics.count(name, other.version, CANARY, outcome_of(failure))
            if self._add is not None:
                failed = Failed(other, CANARY, failure)
                record_failure(first, self._add, failed=failed, origin=origin)
            return
        if first.tag == CANARY:
            self._metrics.count(name, first.loaded.version, CANARY, "answered")
        if self._draw() < self._settings[name].shadow:
            self.shadows.offer(Copy(first, other, read, origin))

    async def close(self) -> None:
        """Give up the copies that wait."""
        await self.shadows.close()
