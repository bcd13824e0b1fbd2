"""One question from any HTTP route: admitted, answered or searched, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from infra.contracts import Answer
from infra.errors import EngineFailed, InvalidRequest, TooLarge
from infra.expectations.recognizers import mask
from infra.retrieval_settings import Retrieval
from retrieval.collections import Collection
from retrieval.filters import Filter
from retrieval.search import SEQUENCE_TIMEOUT_SECONDS, SearchRequest, SearchResult
from retrieval.view import require_sequence
from service.answer_interactions import Subject
from service.answering import AnswerEvent, Finished
from service.billing import Bill, count_repeated, open_bill
from service.callers import Caller
from service.conversations import History, Said
from service.deadlines import NEVER, Deadline
from service.engines import Turn, Unsupported
from service.gateway.estimate import likely_tokens
from service.generating import Chosen
from service.keeping import told_anyway
from service.limits import Admission, Result, in_thread
from service.redaction import redacted
from service.seen import Seen
from service.wiring import Components

SEARCH = "local/search"
"""What limits, prices and usage call a search."""
TEMPLATE_TOKENS = 512
"""Of a prompt, beside the question, what was said before and the passages; rather too many."""
TOKENS_PER_CHUNK_TOKEN = 2
"""A model counts a passage otherwise than the embedder; rather too many, too."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collection: str
    """Name or public id."""
    filter: Filter | None = None
    limit: int | None = None
    history: tuple[Turn, ...] = ()
    quoted: tuple[str, ...] = ()
    """Public ids of the documents that `history` may quote."""
    max_tokens: int | None = None
    min_sequence: int = 0
    template: SearchRequest | None = None
    """How to search, where the settings are not to decide; its text, limit and filter are not."""
    parameter: str = "question"
    """What the caller knows the text, and what was said before it, as; for errors."""
    generator: str | None = None
    """The model or engine that is to answer, where the settings are not to decide."""
    unsupported: Unsupported = "mark"
    conversation: str | None = None
    """Whose messages come before `history`, and which question and answer are added to."""


class Questions:
    """What every route that asks goes through."""

    def __init__(
        self,
        components: Components,
        admission: Admission,
        *,
        seen: Seen | None = None,
        deadline: Deadline = NEVER,
    ) -> None:
        self._components = components
        self._admission = admission
        self._seen = seen or Seen(components, Caller())
        self._deadline = deadline
        self._bill = Bill(None, 0)

    def asked_by(self, seen: Seen, *, until: Deadline) -> Questions:
        """Return the same for one caller, who finds what it may see and waits so long."""
        return Questions(self._components, self._admission, seen=seen, deadline=until)

    @property
    def headers(self) -> Mapping[str, str]:
        """`x-ratelimit-*`, for the answer; none where the gateway counts the call of a model."""
        return self._bill.headers

    async def answer(self, question: Question) -> Answer:
        """Return the whole answer."""
        async with aclosing(self.stream(question)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return event.answer
        raise EngineFailed("The engine ended without an answer; see its log")

    async def stream(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the answer's events; closing it stops the engine and gives the place back.

        Whatever refuses the question raises before the first event.
        """
        self._seen.caller.require("ask")
        try:
            self._check_length(question.text, "question")
            async with (
                self._admission.admit(self._deadline),
                aclosing(self._answered(question)) as events,
            ):
                async for event in events:
                    yield event
        except InvalidRequest as error:
            if question.parameter != "question" and error.parameter in {"question", "history"}:
                error.parameter = question.parameter
            raise

    async def check(self, question: Question) -> None:
        """Refuse a question as asking it would, before anything is searched for.

        Raises:
            Forbidden: the caller's key is not for questions, or not for this model.
            NotFound: the collection or the model is not there, or not the caller's.
        """
        self._seen.caller.require("ask")
        await in_thread(lambda: self._seen.collections.get(question.collection))
        self._choose(question)

    async def count_again(self, question: Question) -> Mapping[str, str]:
        """Count one whose answer is told again as a request; returns `x-ratelimit-*` for it.

        Raises:
            RateLimited: too many requests.
        """
        model = self._choose(question).engine.name
        return await count_repeated(self._components.meter, caller=self._seen.caller, model=model)

    def _choose(self, question: Question) -> Chosen:
        return self._components.generators.choose(
            question.generator,
            self._seen.caller,
            quoted=question.quoted,
            deadline=self._deadline,
        )

    async def _answered(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        collection = await in_thread(lambda: self._prepare(question))
        said = await in_thread(lambda: self._said(question))
        question = replace(
            question,
            history=(*said.turns, *question.history),
            quoted=(*said.documents, *question.quoted),
        )
        template = question.template or SearchRequest("")
        chosen = self._choose(question)
        answering = self._components.answering.searching(
            replace(template, access=self._seen.access)
        ).using(
            chosen.engine,
            rewrite=chosen.rewrite,
            admit=chosen.admit,
            unsupported=question.unsupported,
        )
        events = answering.stream(
            question.text,
            collection,
            filter=question.filter,
            limit=question.limit,
            history=question.history,
            max_tokens=question.max_tokens,
        )
        subject = Subject(
            question.text,
            collection.name,
            chosen.engine.name,
            self._seen.caller,
            quoted=question.quoted,
        )
        async with aclosing(
            self._recorded(self._deadline.bound(events), question, chosen, subject)
        ) as recorded:
            async for event in recorded:
                yield event

    async def _recorded(
        self,
        events: AsyncGenerator[AnswerEvent, None],
        question: Question,
        chosen: Chosen,
        subject: Subject,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events, and charge, count, record and remember what they come to."""
        record = self._components.answer_records.begin(subject)
        if self._components.settings.guards.personal_data == "on":
            events = redacted(events)
        with record.to_its_end():
            bill = self._bill = await self._open_bill(question, chosen)
            try:
                async with aclosing(events):
                    async for event in events:
                        bill.note(event)
                        record.note(event)
                        if isinstance(event, Finished):
                            self._count(event.answer)
                            await in_thread(partial(self._remember, question, event.answer))
                        yield event
            except EngineFailed:
                self._components.metrics.count_answer(subject.engine, "failed")
                raise
            finally:
                bill.close()

    async def _open_bill(self, question: Question, chosen: Chosen) -> Bill:
        """Reserve what an answer costs at most; the gateway does it for its models itself."""
        if chosen.is_billed_by_gateway:
            return Bill(None, 0)
        settings = self._components.settings
        return await open_bill(
            self._components.meter,
            caller=self._seen.caller,
            engine=settings.generation.engine,
            prompt_tokens=most_prompt_tokens(question, settings.retrieval),
            completion_tokens=question.max_tokens or settings.generation.max_tokens,
        )

    def _said(self, question: Question) -> History:
        if question.conversation is None:
            return History()
        return self._components.conversations.history(self._seen.caller, question.conversation)

    def _remember(self, question: Question, answer: Answer) -> None:
        """Add question and answer to the conversation; what masks answers masks them there too."""
        if question.conversation is None:
            return
        texts = [question.text, answer.text]
        if self._components.settings.guards.personal_data != "off":
            texts = [mask(text) for text in texts]
        found = (passage.document_id for passage in answer.passages)
        quoted = (*question.quoted, *found)
        said = [Said.of("user", texts[0]), Said.of("assistant", texts[1], documents=quoted)]
        with told_anyway("an answer is not kept in its conversation"):
            self._components.conversations.append(self._seen.caller, question.conversation, said)

    async def search(self, collection: str, request: SearchRequest) -> SearchResult:
        """Return the best passages of a collection, by name or public id."""
        self._check_length(request.text, "query")
        tokens = likely_tokens(text_bytes([request.text]))
        return await self.work(
            lambda: self._search(collection, request),
            model=SEARCH,
            texts=[request.text],
            used=lambda _: tokens,
        )

    async def work(
        self,
        work: Callable[[], Result],
        *,
        model: str,
        texts: Sequence[str],
        used: Callable[[Result], int],
    ) -> Result:
        """Run what blocks, in turn with questions and searches.

        Args:
            work: is run in a thread.
            model: what limits, prices and usage call it.
            texts: that it reads; they have no more tokens than bytes.
            used: returns how many tokens these were, of the result. It is charged to one who
                leaves or waits no longer, too: what has begun is computed to its end.
        """
        async with self._admission.admit(self._deadline), self._deadline.kept():
            bill = self._bill = await open_bill(
                self._components.meter,
                caller=self._seen.caller,
                engine=model,
                prompt_tokens=text_bytes(texts),
            )
            return await asyncio.shield(asyncio.create_task(_charged(work, bill, used)))

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


async def _charged(work: Callable[[], Result], bill: Bill, used: Callable[[Result], int]) -> Result:
    try:
        result = await in_thread(work)
        bill.settle(used(result))
        return result
    finally:
        bill.close()


def most_prompt_tokens(question: Question, options: Retrieval) -> int:
    """Return what a model will hardly count more than: of text its bytes."""
    said = text_bytes([question.text, *(turn.content for turn in question.history)])
    passages = options.passages if question.limit is None else question.limit
    chunks = passages * (1 + 2 * options.neighbours)
    return said + TEMPLATE_TOKENS + chunks * options.chunk_tokens * TOKENS_PER_CHUNK_TOKEN


def text_bytes(texts: Iterable[str]) -> int:
    """Return how many bytes some texts have, which is more than they have tokens."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts)
