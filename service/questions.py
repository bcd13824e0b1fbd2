"""One question from any HTTP route: admitted, answered or searched, and counted."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from infra import telemetry
from infra.contracts import Answer, Usage
from infra.errors import EngineFailed, InvalidRequest, TooLarge
from retrieval.collections import Collection
from retrieval.filters import Filter
from retrieval.search import SEQUENCE_TIMEOUT_SECONDS, SearchRequest, SearchResult
from retrieval.view import require_sequence
from service.answering import AnswerEvent, Finished, Text
from service.callers import Caller
from service.engines import Turn
from service.gateway.calls import Call, Ticket
from service.limits import Admission, Result, in_thread
from service.wiring import Components

TEMPLATE_TOKENS = 512
"""Of a prompt, beside the question, what was said before and the passages; rather too many."""
TOKENS_PER_CHUNK_TOKEN = 2
"""A model counts a passage otherwise than the embedder; rather too many, too."""
ANSWER_SECONDS = 300.0


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
    caller: Caller = Caller()


class Questions:
    """What every route that asks goes through."""

    def __init__(self, components: Components, admission: Admission) -> None:
        self._components = components
        self._admission = admission

    async def answer(self, question: Question) -> Answer:
        """Return the whole answer."""
        async with aclosing(self.stream(question)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise EngineFailed("The engine ended without an answer; see its log")

    async def stream(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the answer's events; closing it stops the engine and gives the place back."""
        question.caller.require("ask")
        self._check_length(question.text, question.parameter)
        async with self._admission.admit():
            collection = await in_thread(lambda: self._prepare(question))
            answering = self._components.answering
            if question.template is not None:
                answering = answering.searching(question.template)
            events = answering.stream(
                question.text,
                collection,
                filter=question.filter,
                limit=question.limit,
                history=question.history,
                max_tokens=question.max_tokens,
            )
            bill = await self._open_bill(question)
            try:
                async with aclosing(events):
                    async for event in events:
                        bill.note(event)
                        if isinstance(event, Finished):
                            self._count(event.answer)
                        yield event
            except EngineFailed:
                self._components.metrics.count_answer(self._components.engine.name, "failed")
                raise
            finally:
                bill.close()

    async def search(self, collection: str, request: SearchRequest) -> SearchResult:
        """Return the best passages of a collection, by name or public id."""
        self._check_length(request.text, "query")
        async with self._admission.admit():
            return await in_thread(lambda: self._search(collection, request))

    async def work(self, work: Callable[[], Result]) -> Result:
        """Run what blocks, in turn with questions and searches."""
        async with self._admission.admit():
            return await in_thread(work)

    async def _open_bill(self, question: Question) -> _Bill:
        """Reserve the most that an answer may cost.

        Raises:
            RateLimited: too many requests, tokens or calls at once.
            BudgetExceeded: it might cost more than is left.
        """
        options = self._components.settings.generation
        call = Call(
            request_id=telemetry.request_id.get() or "",
            # What it may ask is a matter of collections; the model that answers is the service's.
            caller=replace(question.caller, models=None),
            path="/v1/answers",
            model=options.model or options.engine,
            body={},
            deadline=time.monotonic() + ANSWER_SECONDS,
        )
        prompt = self._most_prompt_tokens(question)
        completion = question.max_tokens or options.max_tokens
        meter = self._components.meter
        ticket = meter.try_admit(call, prompt_tokens=prompt, completion_tokens=completion)
        if ticket is None:
            ticket = await meter.admit(call, prompt_tokens=prompt, completion_tokens=completion)
        return _Bill(ticket, prompt)

    def _most_prompt_tokens(self, question: Question) -> int:
        """Return what a model will hardly count more than: of text its bytes."""
        options = self._components.settings.retrieval
        texts = [question.text, *(turn.content for turn in question.history)]
        said = sum(len(text.encode("utf-8", "replace")) for text in texts)
        passages = options.passages if question.limit is None else question.limit
        chunks = passages * (1 + 2 * options.neighbours)
        return said + TEMPLATE_TOKENS + chunks * options.chunk_tokens * TOKENS_PER_CHUNK_TOKEN

    def _search(self, name: str, request: SearchRequest) -> SearchResult:
        collection = self._components.collections.get(name)
        self._check_sequence(collection, request.min_sequence)
        return self._components.search(collection, request)

    def _prepare(self, question: Question) -> Collection:
        collection = self._components.collections.get(question.collection)
        if question.min_sequence:
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


class _Bill:
    """What one answer is charged: what it used, or, cut off, what was written of it."""

    def __init__(self, ticket: Ticket, prompt_tokens: int) -> None:
        self._ticket = ticket
        self._prompt_tokens = prompt_tokens
        self._written_bytes = 0

    def note(self, event: AnswerEvent) -> None:
        """Look at an event on its way to the caller."""
        if isinstance(event, Text):
            self._written_bytes += len(event.text.encode("utf-8", "replace"))
        elif isinstance(event, Finished):
            self._ticket.settle(event.answer.usage)

    def close(self) -> None:
        """End it; an answer that nothing was written of costs nothing."""
        if self._written_bytes:
            self._ticket.settle(Usage(self._prompt_tokens, self._written_bytes))
        self._ticket.refund()
