"""Rounds of work that watches over something: one that fails is told of, and the next one comes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


class Rounds:
    """Says once what a failure is, however many rounds it lasts."""

    def __init__(self, what: str) -> None:
        """`what` is watched over, as the log is to name it: "the adapters"."""
        self._what = what
        self._said = ""

    async def attempt(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do one round; return whether it went well."""
        try:
            await work()
        except Exception as error:  # whatever it is, what is watched over outlives it
            name = f"{type(error).__name__}: {error}"
            if name != self._said:
                logger.exception("a look at %s failed, others follow: %s", self._what, name)
            self._said = name
            return False
        self._said = ""
        return True
