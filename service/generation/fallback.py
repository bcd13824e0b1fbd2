"""Engines in a row: the next one answers where one fails before its first word."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from infra.errors import EngineFailed, NotReady, Overloaded, RagstoneError
from service.engines import Delta, Engine, Prompt


class Fallback:
    """Asks one engine, and the next where that fails before its first word."""

    def __init__(
        self,
        engines: Sequence[Engine],
        *,
        note: Callable[[str, RagstoneError], None],
    ) -> None:
        """Take the engines, best first, and what to tell of one that failed."""
        self._engines = engines
        self._note = note

    @property
    def name(self) -> str:
        return self._engines[0].name

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        """Yield the answer of the first engine that gives one.

        Raises:
            EngineFailed: the last one failed, or one broke off in the middle.
        """
        for engine in self._engines:
            has_begun = False
            try:
                stream = cast("AsyncGenerator[Delta, None]", engine.stream(prompt))
                async with aclosing(stream) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield _signed(delta, engine.name)
                return
            except (EngineFailed, Overloaded, NotReady) as error:
                if has_begun or engine is self._engines[-1]:
                    raise
                self._note(engine.name, error)

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()


def _signed(delta: Delta, name: str) -> Delta:
    if delta.finish_reason is None or delta.notes.engine is not None:
        return delta
    return replace(delta, notes=replace(delta.notes, engine=name))
