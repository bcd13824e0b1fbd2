"""Answer out: retrieve, compose the prompt, generate, cite, verify."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

from anyio import to_thread

from infra.contracts import Answer, Citation, Passage, Usage
from infra.errors import EngineFailed, InvalidRequest, TooLarge
from infra.security import new_id
from infra.settings import Settings
from retrieval.search import SearchRequest, SearchResult
from service.citations import ReadText, check, read_markers
from service.conversation import standalone
from service.engines import Delta, Engine, Prompt, Quote, Turn, Unsupported

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.filters import Filter


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The passages are found; nothing is answered yet."""

    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation that was checked; its stretch of the answer has been told."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole answer; always the last event."""

    answer: Answer


AnswerEvent: TypeAlias = Retrieved | Text | Cited | Finished
Search: TypeAlias = "Callable[[Collection, SearchRequest], SearchResult]"
Rewrite: TypeAlias = Callable[[str, Sequence[Turn]], Awaitable[str | None]]
"""A question and what was said before it, to what to search for; None leaves that to the rules."""
Ground: TypeAlias = Callable[[Answer], Awaitable[Answer]]
"""An answer to the same with how well its passages carry it."""
Admit: TypeAlias = Callable[[str, Sequence[Turn]], Awaitable[tuple[Turn, ...]]]
"""The same, to what may be read of what was said; raises where the question may not be."""


class Answering:
    """Answers questions over a collection with one engine."""

    def __init__(
        self,
        *,
        search: Search,
        engine: Engine,
        read_text: ReadText,
        settings: Settings,
        ground: Ground | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take the parts.

        Args:
            search: finds passages; blocks, so it runs in a thread.
            engine: writes the answer.
            read_text: the stored text at a span; blocks too.
            settings: limits and defaults.
            ground: scores whole answers before they are told; None leaves that out.
            clock: seconds from any fixed moment.
        """
        self._search = search
        self._engine = engine
        self._read_text = read_text
        self._settings = settings
        self._ground = ground
        self._clock = clock
        self._template = SearchRequest("")
        self._rewrite: Rewrite | None = None
        self._admit: Admit | None = None
        self._unsupported: Unsupported = "mark"

    def searching(self, template: SearchRequest) -> Answering:
        """Return the same, with searches like `template` but for its text, limit and filter."""
        other = copy(self)
        other._template = template
        return other

    def using(
        self,
        engine: Engine | None = None,
        *,
        rewrite: Rewrite | None = None,
        admit: Admit | None = None,
        unsupported: Unsupported = "mark",
    ) -> Answering:
        """Return the same with another engine and what belongs to it, or with other wishes."""
        other = copy(self)
        if engine is not None:
            other._engine, other._rewrite, other._admit = engine, rewrite, admit
        other._unsupported = unsupported
        return other

    async def answer(
        self,
        question: str,
        collection: Collection,
        *,
        filter: Filter | None = None,
        limit: int | None = None,
        history: Sequence[Turn] = (),
        max_tokens: int | None = None,
    ) -> Answer:
        """Return the whole answer; see `stream`."""
        events = self.stream(
            question,
            collection,
            filter=filter,
            limit=limit,
            history=history,
            max_tokens=max_tokens,
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise EngineFailed(f"The engine {self._engine.name!r} ended without an answer")

    def stream(
        self,
        question: str,
        collection: Collection,
        *,
        filter: Filter | None = None,
        limit: int | None = None,
        history: Sequence[Turn] = (),
        max_tokens: int | None = None,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Return the events of an answer: passages, text and citations as they come, the whole.

        Closing it stops the engine. Only citations that equal the stored text are among them. The
        first comes once the engine has begun: until then, whatever refuses raises.

        Args:
            question: what is asked now.
            collection: where to look.
            filter: restricts the documents by their metadata.
            limit: passages handed to the engine; as the settings say if absent.
            history: what was said before, oldest first, without the question.
            max_tokens: of the answer; as the settings say if absent.

        Raises:
            InvalidRequest: the question is empty or not text; raised at once.
            TooLarge: the question is longer than `server.max_question_characters`; raised at once.
            EngineFailed: the engine did not answer.
        """
        limits = self._settings
        longest = limits.server.max_question_characters
        _require_askable(question, longest)
        request = replace(
            self._template,
            text=standalone(question, history, max_characters=longest),
            limit=limits.retrieval.passages if limit is None else limit,
            filter=filter,
        )
        prompt = Prompt(
            question=question,
            passages=(),
            history=tuple(history),
            max_tokens=limits.generation.max_tokens if max_tokens is None else max_tokens,
            unsupported=self._unsupported,
        )
        return self._run(collection, request, prompt)

    async def _run(
        self, collection: Collection, request: SearchRequest, prompt: Prompt
    ) -> AsyncGenerator[AnswerEvent, None]:
        watch = _Stopwatch(self._clock)
        draft = _Draft()
        if self._admit is not None:
            history = await self._admit(prompt.question, prompt.history)
            draft.screened = len(prompt.history) - len(history)
            prompt = replace(prompt, history=history)
            watch.skip()
        if self._rewrite is not None and prompt.history:
            text = await self._rewrite(prompt.question, prompt.history)
            request = replace(request, text=text or request.text)
            watch.lap("rewrite")
        found = await to_thread.run_sync(self._search, collection, request)
        watch.lap("search")
        prompt = replace(prompt, passages=found.passages)
        async with aclosing(self._written(draft, prompt, watch)) as events:
            async for event in events:
                yield event
        timings_ms = _timings(watch, found)
        answer = self._finish(draft, prompt, collection, timings_ms=timings_ms)
        yield Finished(answer if self._ground is None else await self._ground(answer))

    async def _written(
        self, draft: _Draft, prompt: Prompt, watch: _Stopwatch
    ) -> AsyncGenerator[AnswerEvent, None]:
        has_begun = False
        async with aclosing(self._engine_stream(prompt)) as deltas:
            async for delta in deltas:
                watch.lap("generate")
                if not has_begun:
                    has_begun = True
                    yield Retrieved(prompt.passages)
                draft.add(delta)
                if delta.text:
                    yield Text(delta.text)
                watch.skip()
                citations = await self._verify(draft, delta.quotes, prompt)
                watch.lap("verify")
                for citation in citations:
                    yield Cited(citation)
                watch.skip()
        if draft.end is None:
            raise EngineFailed(f"The engine {self._engine.name!r} stopped before the answer's end")
        if not (draft.has_quotes or draft.end.notes.has_read_markers):
            citations = await self._verify_markers(draft, prompt)
            watch.lap("verify")
            for citation in citations:
                yield Cited(citation)

    def _engine_stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        """Every engine's stream can be closed: that is one of the laws it is tested against."""
        return cast("AsyncGenerator[Delta, None]", self._engine.stream(prompt))

    async def _verify(
        self, draft: _Draft, quotes: Sequence[Quote], prompt: Prompt
    ) -> tuple[Citation, ...]:
        if not quotes:
            return ()
        work = partial(check, quotes, prompt.passages, read_text=self._read_text)
        checked = await to_thread.run_sync(work)
        draft.citations += checked.citations
        draft.unverified += checked.unverified
        return checked.citations

    async def _verify_markers(self, draft: _Draft, prompt: Prompt) -> tuple[Citation, ...]:
        """For an engine that writes `[n]` and says no more."""
        marked = read_markers(draft.text, prompt.passages)
        draft.unverified += marked.unknown
        return await self._verify(draft, marked.quotes, prompt)

    def _finish(
        self,
        draft: _Draft,
        prompt: Prompt,
        collection: Collection,
        *,
        timings_ms: Mapping[str, float],
    ) -> Answer:
        end = draft.end or Delta()
        return Answer(
            id=new_id("answer-"),
            question=prompt.question,
            collection=collection.name,
            text=draft.text,
            answerable=end.answerable,
            reason=end.reason,
            citations=tuple(draft.citations),
            passages=prompt.passages,
            engine=end.notes.engine or self._engine.name,
            usage=end.usage or Usage(),
            timings_ms=timings_ms,
            finish_reason=end.finish_reason or "stop",
            unverified=draft.unverified + end.notes.unknown,
            prompt_version=end.notes.prompt_version,
            unsupported=end.notes.unsupported,
            left_out=draft.left_out,
        )


@dataclass(slots=True)
class _Draft:
    """An answer while it is written."""

    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    unverified: int = 0
    has_quotes: bool = False
    screened: int = 0
    """Of what was said before the question."""
    end: Delta | None = None

    def add(self, delta: Delta) -> None:
        self.text += delta.text
        self.has_quotes = self.has_quotes or bool(delta.quotes)
        if delta.finish_reason is not None:
            self.end = delta

    @property
    def left_out(self) -> Mapping[str, int]:
        """What no model was shown."""
        left_out = dict(self.end.notes.left_out) if self.end else {}
        if self.screened:
            left_out["screened"] = left_out.get("screened", 0) + self.screened
        return left_out


class _Stopwatch:
    """Adds up milliseconds by step; what passes between a lap and a skip is nobody's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.laps_ms: dict[str, float] = {}
        self._clock = clock
        self._started = self._last = clock()

    def lap(self, name: str) -> None:
        last, self._last = self._last, self._clock()
        self.laps_ms[name] = self.laps_ms.get(name, 0.0) + (self._last - last) * 1e3

    def skip(self) -> None:
        self._last = self._clock()

    @property
    def total_ms(self) -> float:
        return (self._clock() - self._started) * 1e3


def _timings(watch: _Stopwatch, found: SearchResult) -> dict[str, float]:
    embed = found.timings_ms.get("embed", 0.0)
    rewritten = {"rewrite": watch.laps_ms["rewrite"]} if "rewrite" in watch.laps_ms else {}
    return {
        **rewritten,
        "embed": embed,
        "search": max(0.0, watch.laps_ms["search"] - embed),
        "generate": watch.laps_ms.get("generate", 0.0),
        "verify": watch.laps_ms.get("verify", 0.0),
        "total": watch.total_ms,
    }


def _require_askable(question: str, longest: int) -> None:
    if len(question) > longest:
        raise TooLarge(
            f"The question has {len(question)} characters, {longest} are allowed; "
            "put long texts into a collection and ask about them",
            parameter="question",
        )
    if not question.strip():
        raise InvalidRequest("The question is empty", parameter="question")
    if any("\ud800" <= character <= "\udfff" for character in question):
        raise InvalidRequest("The question holds half a surrogate pair", parameter="question")
