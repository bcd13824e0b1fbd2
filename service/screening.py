"""Keeps instructions out of prompts: questions are refused, passages left out, or only counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from anyio import to_thread

from infra.contracts import Passage
from infra.errors import Screened
from service.guards import Kind, Screen

Mode: TypeAlias = Literal["off", "log", "on"]


def _keep_no_count(_kind: Kind, _number: int) -> None:
    pass


class Screening:
    """One screen with what is to become of what it finds."""

    def __init__(
        self,
        screen: Screen | None,
        *,
        mode: Mode = "on",
        threshold: float = 0.5,
        count: Callable[[Kind, int], None] = _keep_no_count,
    ) -> None:
        """Take the screen; without one, or with the mode `off`, everything passes.

        Args:
            screen: scores texts.
            mode: `on` acts, `log` counts.
            threshold: scores from here on are taken for an injection.
            count: is told how many were found, of which kind.
        """
        self._screen = None if mode == "off" else screen
        self._acts = mode == "on"
        self._threshold = threshold
        self._count = count

    async def check_question(self, text: str, *, parameter: str = "question") -> None:
        """Let a question pass or refuse it.

        Raises:
            Screened: it seems to instruct the model instead of asking it.
        """
        if await self._found([text], "question") and self._acts:
            raise Screened(
                "The question seems to change the rules that answers are given by; "
                "ask for what you want to know, without instructions to the model",
                parameter=parameter,
            )

    async def keep(self, passages: Sequence[Passage]) -> tuple[int, ...]:
        """Return the positions of the passages that may be shown to a model."""
        found = await self._found([passage.text for passage in passages], "passage")
        hidden = found if self._acts else frozenset()
        return tuple(at for at in range(len(passages)) if at not in hidden)

    async def _found(self, texts: Sequence[str], kind: Kind) -> frozenset[int]:
        if self._screen is None or not texts:
            return frozenset()
        screen = self._screen
        scores = await to_thread.run_sync(lambda: screen.score(texts, kind=kind))
        found = frozenset(at for at, score in enumerate(scores) if score >= self._threshold)
        if found:
            self._count(kind, len(found))
        return found
