"""One question from any HTTP route: admitted, answered or searched, and counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from infra.contracts import Answer
from infra.errors import EngineFailed, InvalidRequest, TooLarge
from retrieval.collections import Collection
from retrieval.filters import Filter
from retrieval.search import SEQUENCE_TIMEOUT_SECONDS, SearchRequest, SearchResult
from retrieval.view import require_sequence
from service.answering import AnswerEvent, Finished
from service.callers import Caller
from service.engines import Turn
from service.limits import Admission, in_thread
from service.seen import Seen
from service.wiring import Components


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collection: str
    """Name or public id."""
    filter: Filter | None = None
    limit: int | None = None
    history: tuple[Turn, ...] = ()
    max_tokens: int | None = None
    min_sequence: int = 0
    template: SearchRequest | None = None
    """How to search, where the settings are not to decide; its text, limit and filter are not."""
    parameter: str = "question"
    """What the caller knows the text as, for error messages."""


class Questions:
    """What every route that asks goes through."""

    def __init__(
        self, components: Components, admission: Admission, *, seen: Seen | None = None
    ) -> None:
        self._components = components
        self._admission = admission
        self._seen = seen or Seen(components, Caller())

    def asked_by(self, seen: Seen) -> Questions:
        """Return the same for one caller, who finds what it may see and nothing else."""
        return Questions(self._components, self._admission, seen=seen)

    async def answer(self, question: Question) -> Answer:
        """Return the whole answer."""
        async with aclosing(self.stream(question)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise EngineFailed("The engine ended without an answer; see its log")

    async def stream(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the answer's events; closing it stops the engine and gives the place back."""
        self._check_length(question.text, question.parameter)
        async with self._admission.admit():
            collection = await in_thread(lambda: self._prepare(question))
            template = question.template or SearchRequest("")
            template = replace(template, access=self._seen.access)
            answering = self._components.answering.searching(template)
            events = answering.stream(
                question.text,
                collection,
                filter=question.filter,
                limit=question.limit,
                history=question.history,
                max_tokens=question.max_tokens,
            )
            try:
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, Finished):
                            self._count(event.answer)
                        yield event
            except EngineFailed:
                self._components.metrics.count_answer(self._components.engine.name, "failed")
                raise

    async def search(self, collection: str, request: SearchRequest) -> SearchResult:
        """Return the best passages of a collection, by name or public id."""
        self._check_length(request.text, "query")
        async with self._admission.admit():
            return await in_thread(lambda: self._search(collection, request))

    def _search(self, name: str, request: SearchRequest) -> SearchResult:
        collection = self._seen.collections.get(name)
        request = replace(request, access=self._seen.access)
        if request.access is not None:  # see _prepare
            request = replace(request, min_sequence=0)
        self._check_sequence(collection, request.min_sequence)
        return self._components.search(collection, request)

    def _prepare(self, question: Question) -> Collection:
        collection = self._seen.collections.get(question.collection)
        # Sequences count what everybody writes, so a tenant is told none and may wait for none.
        if question.min_sequence and self._seen.access is None:
            self._check_sequence(collection, question.min_sequence)
            view = self._components.views.get(collection)
            require_sequence(view, question.min_sequence, timeout_seconds=SEQUENCE_TIMEOUT_SECONDS)
        return collection

    def _check_sequence(self, collection: Collection, sequence: int) -> None:
        """Refuse to wait for what was never written to this collection."""
        if sequence and sequence > self._components.views.get(collection).latest_sequence():
            raise InvalidRequest(
                f"Nothing with sequence {sequence} was written to {collection.name!r}",
                parameter="min_sequence",
            )

    def _check_length(self, text: str, parameter: str) -> None:
        longest = self._components.settings.server.max_question_characters
        if len(text) > longest:
            raise TooLarge(
                f"The question has {len(text):,} characters, {longest:,} are allowed; "
                "put long texts into a collection and ask about them",
                parameter=parameter,
            )

    def _count(self, answer: Answer) -> None:
        self._components.metrics.count_answer(
            answer.engine, "answered" if answer.answerable else "abstained"
        )
