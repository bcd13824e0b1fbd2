"""Keeps instructions out of prompts: questions are refused, passages left out, or only counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Literal, TypeAlias

from anyio import to_thread
from cachetools import LRUCache

from infra.contracts import Passage
from infra.errors import Screened
from service.engines import Turn
from service.guards import Kind, Screen

Mode: TypeAlias = Literal["off", "log", "on"]
LOOKED_UP_HERE = 32_768
"""Characters: to look up longer texts takes a thread, too."""
REMEMBERED = 8192
"""Texts whose score is kept: a conversation comes again with each of its questions."""


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
        self._scores: LRUCache[bytes, float] = LRUCache(REMEMBERED)
        self._lock = Lock()

    async def admit(self, question: str, history: Sequence[Turn] = ()) -> tuple[Turn, ...]:
        """Let a question pass with what was said before it, or refuse it.

        What the application says as the system is its own and is not looked at. What is said to be
        an earlier answer is left out where it seems to instruct, as a passage would be.

        Raises:
            Screened: the question, or one before it, seems to instruct the model.
        """
        earlier = [turn.content for turn in history if turn.role == "user"]
        found = await self._found([question, *earlier], "question")
        if found and self._acts:
            what = "The question" if 0 in found else "A question asked earlier"
            raise Screened(
                f"{what} seems to change the rules that answers are given by; "
                "ask for what you want to know, without instructions to the model",
                parameter="question" if 0 in found else "history",
            )
        answers = [at for at, turn in enumerate(history) if turn.role == "assistant"]
        found = await self._found([history[at].content for at in answers], "passage")
        hidden = {answers[at] for at in found} if self._acts else set()
        return tuple(turn for at, turn in enumerate(history) if at not in hidden)

    async def check(self, asked: Sequence[str], read: Sequence[str], *, parameter: str) -> None:
        """Let a chat pass or refuse it.

        Args:
            asked: what users say.
            read: what comes from elsewhere, such as a tool's results.
            parameter: what the caller knows both as.

        Raises:
            Screened: one of them seems to instruct the model.
        """
        found = await self._found(asked, "question") | await self._found(read, "passage")
        if found and self._acts:
            raise Screened(
                "A message seems to change the rules that the model goes by; "
                "ask for what you want to know, without instructions to the model",
                parameter=parameter,
            )

    async def keep(self, passages: Sequence[Passage]) -> tuple[int, ...]:
        """Return the positions of the passages that may be shown to a model."""
        found = await self._found([_shown(passage) for passage in passages], "passage")
        hidden = found if self._acts else frozenset()
        return tuple(at for at in range(len(passages)) if at not in hidden)

    async def _found(self, texts: Sequence[str], kind: Kind) -> frozenset[int]:
        if self._screen is None or not texts:
            return frozenset()
        scores = await self._scored(self._screen, texts, kind)
        found = frozenset(at for at, score in enumerate(scores) if score >= self._threshold)
        if found:
            self._count(kind, len(found))
        return found

    async def _scored(self, screen: Screen, texts: Sequence[str], kind: Kind) -> list[float]:
        """Score in a thread, which costs a tenth of what scoring a short text does.

        What is known already is only looked up, and needs none.
        """
        if sum(map(len, texts)) <= LOOKED_UP_HERE:
            known = dict(self._known(texts, kind))
            if len(known) == len(set(texts)):
                return [known[text] for text in texts]
        return await to_thread.run_sync(self._score, screen, texts, kind)

    def _known(self, texts: Sequence[str], kind: Kind) -> list[tuple[str, float]]:
        keys = [_digest(text, kind) for text in texts]
        with self._lock:
            return [
                (text, self._scores[key])
                for text, key in zip(texts, keys, strict=True)
                if key in self._scores
            ]

    def _score(self, screen: Screen, texts: Sequence[str], kind: Kind) -> list[float]:
        known = dict(self._known(texts, kind))
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known |= zip(new, screen.score(new, kind=kind), strict=True)
            with self._lock:
                self._scores.update((_digest(text, kind), known[text]) for text in new)
        return [known[text] for text in texts]


def _shown(passage: Passage) -> str:
    """All of a passage that a prompt shows: whoever wrote the text wrote its titles, too."""
    return "\n\n".join(part for part in (passage.title, passage.heading, passage.text) if part)


def _digest(text: str, kind: Kind) -> bytes:
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=16, person=kind.encode()
    ).digest()
