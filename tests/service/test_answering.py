"""The answer path: events in order, checked citations, limits, time by step, clean stops."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from infra.contracts import Answer, Passage
from infra.errors import EngineFailed, InvalidRequest, TooLarge
from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.embedders import open_embedder
from retrieval.filters import parse
from retrieval.recipe import Recipe
from retrieval.search import SearchRequest, SearchResult
from service.answering import AnswerEvent, Answering, Cited, Finished, Retrieved, Text
from service.engines import Delta, EngineContext, Prompt, Quote, Turn, open_engine

STORED = {
    "file-tower": "The White Tower was begun in 1078. Its ragstone came from Maidstone in Kent.",
    "file-ravens": "Six ravens live at the tower. Legend says the kingdom falls if they leave.",
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLLECTION = Collection(
    id=1,
    public_id="vs_1",
    name="towers",
    build_id=1,
    recipe=Recipe("hashing", "hashing-64", 64, 200, 32),
    attributes={},
    created_at=NOW,
    last_active_at=NOW,
)


@dataclass
class Library:
    """A search over two stored texts that keeps what it was asked."""

    stored: dict[str, str] = field(default_factory=lambda: dict(STORED))
    asked: list[SearchRequest] = field(default_factory=list)

    def search(self, collection: Collection, request: SearchRequest) -> SearchResult:
        assert collection is COLLECTION
        self.asked.append(request)
        passages = tuple(
            Passage(
                chunk_id=number,
                document_id=name,
                document_version=1,
                collection=collection.name,
                source=f"{name}.txt",
                title=name,
                start_char=0,
                end_char=len(text),
                text=text,
                score=1 / (1 + number),
            )
            for number, (name, text) in enumerate(STORED.items())
        )
        return SearchResult(passages[: request.limit], {"embed": 0.25, "dense": 0.5})

    def read_text(self, document_id: str, version: int, start: int, end: int) -> str | None:
        assert version == 1
        text = self.stored.get(document_id)
        return None if text is None else text[start:end]


@dataclass
class Scripted:
    """An engine that says what it is given, as a generator would."""

    deltas: tuple[Delta, ...]
    closed: bool = False
    prompts: list[Prompt] = field(default_factory=list)
    name: str = "scripted"

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        self.prompts.append(prompt)
        try:
            for delta in self.deltas:
                await anyio.lowlevel.checkpoint()
                yield delta
        finally:
            self.closed = True

    async def close(self) -> None: ...


def build(
    library: Library,
    *,
    engine: Any = "extractive",
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Answering:
    context = EngineContext(open_embedder("hashing", dimension=64), options or {})
    return Answering(
        search=library.search,
        engine=open_engine(engine, context) if isinstance(engine, str) else engine,
        read_text=library.read_text,
        settings=load_settings(**settings),
    )


def ask(answering: Answering, question: str, **options: Any) -> Answer:
    async def run() -> Answer:
        return await answering.answer(question, COLLECTION, **options)

    return anyio.run(run)


def events_of(answering: Answering, question: str, **options: Any) -> list[AnswerEvent]:
    async def run() -> list[AnswerEvent]:
        return [event async for event in answering.stream(question, COLLECTION, **options)]

    return anyio.run(run)


def test_answer_carries_a_checked_citation() -> None:
    answer = ask(build(Library()), "When was the White Tower begun?")
    assert answer.answerable
    assert answer.text.startswith("The White Tower was begun in 1078. [1]")
    first = answer.citations[0]
    assert STORED[first.document_id][first.start_char : first.end_char] == first.text
    assert answer.text[first.answer_start : first.answer_end] == first.text
    assert (answer.collection, answer.engine, answer.unverified) == ("towers", "extractive", 0)
    assert answer.usage.prompt_tokens > answer.usage.completion_tokens > 0
    assert [passage.document_id for passage in answer.passages] == list(STORED)


def test_events_come_in_order_and_fold_to_the_answer() -> None:
    events = events_of(
        build(Library()), "When was the White Tower begun, and how many ravens live there?"
    )
    assert isinstance(events[0], Retrieved)
    assert isinstance(events[-1], Finished)
    answer = events[-1].answer
    told = ""
    citations = []
    for event in events[1:-1]:
        if isinstance(event, Text):
            told += event.text
        else:
            assert isinstance(event, Cited)
            citations.append(event.citation)
            assert event.citation.answer_end <= len(told)
    assert told == answer.text
    assert tuple(citations) == answer.citations
    assert events[0].passages == answer.passages


def test_refusal_is_an_answer_with_a_reason() -> None:
    answer = ask(build(Library()), "What is the boiling point of tungsten hexafluoride?")
    assert not answer.answerable
    assert answer.reason
    assert answer.citations == ()
    assert answer.text == "The documents do not say."


def test_citation_of_a_document_deleted_meanwhile_is_dropped_and_counted() -> None:
    library = Library()
    del library.stored["file-tower"]
    answer = ask(build(library), "When was the White Tower begun?")
    assert all(citation.document_id != "file-tower" for citation in answer.citations)
    assert answer.unverified >= 1


def test_markers_of_an_engine_that_only_writes_become_citations() -> None:
    engine = Scripted((Delta("Begun in 1078 [1]. "), Delta("Flown [9].", finish_reason="stop")))
    answer = ask(build(Library(), engine=engine), "When?")
    (citation,) = answer.citations
    assert citation.text == "The White Tower was begun in 1078."
    assert answer.text[citation.answer_start : citation.answer_end] == "Begun in 1078"
    assert answer.unverified == 1


def test_quote_that_is_not_in_the_passage_is_never_a_citation() -> None:
    wrong = Quote(0, 0, 10_000, answer_start=0, answer_end=4, support=1.0)
    engine = Scripted((Delta("Lies", quotes=(wrong,)), Delta(finish_reason="stop")))
    answer = ask(build(Library(), engine=engine), "When?")
    assert (answer.citations, answer.unverified) == ((), 1)


def test_time_is_told_by_step() -> None:
    answer = ask(
        build(Library(), engine="echo", options={"delay_seconds": 0.02}), "one two three four five"
    )
    assert list(answer.timings_ms) == ["embed", "search", "generate", "verify", "total"]
    assert answer.timings_ms["embed"] == 0.25
    assert answer.timings_ms["generate"] >= 100
    assert answer.timings_ms["total"] >= answer.timings_ms["generate"]


def test_slow_reader_is_not_counted_as_generation() -> None:
    async def read_slowly() -> Answer:
        events = build(Library(), engine="echo").stream("one two three", COLLECTION)
        answers = []
        async for event in events:
            await anyio.sleep(0.05)
            answers += [event.answer] if isinstance(event, Finished) else []
        return answers[0]

    timings = anyio.run(read_slowly).timings_ms
    assert timings["total"] >= 200
    assert timings["generate"] + timings["verify"] < 150


@pytest.mark.parametrize("question", ["", "  \n\t", "half \ud800 pair"])
def test_question_without_text_is_refused_at_once(question: str) -> None:
    library = Library()
    with pytest.raises(InvalidRequest):
        build(library).stream(question, COLLECTION)
    assert library.asked == []


def test_question_of_100_kilobytes_is_too_large() -> None:
    with pytest.raises(TooLarge, match="8000"):
        build(Library()).stream("x" * 100_000, COLLECTION)


def test_longest_allowed_question_is_answered() -> None:
    answering = build(Library(), server={"max_question_characters": 500})
    ask(answering, "tower " * 83)
    with pytest.raises(TooLarge):
        ask(answering, "tower " * 84)


def test_search_gets_the_limit_the_filter_and_the_question() -> None:
    library = Library()
    only = parse({"type": "eq", "key": "place", "value": "Kent"})
    answer = ask(build(library), "When was it begun, the tower?", filter=only, limit=1)
    assert library.asked == [SearchRequest("When was it begun, the tower?", limit=1, filter=only)]
    assert len(answer.passages) == 1
    ask(build(library, retrieval={"passages": 2}), "When?")
    assert library.asked[-1].limit == 2


def test_follow_up_searches_with_the_question_before() -> None:
    library = Library()
    history = (Turn("user", "When was the White Tower begun?"), Turn("assistant", "In 1078."))
    answer = ask(build(library), "And where did its ragstone come from?", history=history)
    assert library.asked[0].text.startswith("When was the White Tower begun?\n")
    assert "Maidstone" in answer.text
    assert answer.question == "And where did its ragstone come from?"


def test_engine_gets_history_and_the_token_limit() -> None:
    engine = Scripted((Delta("x", finish_reason="length"),))
    history = (Turn("user", "Hello"),)
    answer = ask(build(Library(), engine=engine), "When?", history=history, max_tokens=7)
    (prompt,) = engine.prompts
    assert (prompt.history, prompt.max_tokens, prompt.question) == (history, 7, "When?")
    assert answer.finish_reason == "length"
    ask(build(Library(), engine=engine, generation={"max_tokens": 9}), "When?")
    assert engine.prompts[-1].max_tokens == 9


def test_failing_engine_is_engine_failed() -> None:
    with pytest.raises(EngineFailed):
        ask(build(Library(), engine="echo", options={"fail_after": 1}), "one two three")


def test_engine_that_never_finishes_is_engine_failed() -> None:
    with pytest.raises(EngineFailed, match="scripted"):
        ask(build(Library(), engine=Scripted((Delta("half an"),))), "When?")


def test_closing_the_stream_closes_the_engine() -> None:
    engine = Scripted(tuple(Delta("x") for _ in range(100)))

    async def close_early() -> None:
        events = build(Library(), engine=engine).stream("When?", COLLECTION)
        async for event in events:
            if isinstance(event, Text):
                break
        await events.aclose()

    anyio.run(close_early)
    assert engine.closed


def test_cancelled_reader_closes_the_engine() -> None:
    engine = Scripted(tuple(Delta("x") for _ in range(100)))

    async def cancel() -> None:
        with anyio.CancelScope() as scope:
            async for event in build(Library(), engine=engine).stream("When?", COLLECTION):
                if isinstance(event, Text):
                    scope.cancel()

    anyio.run(cancel)
    assert engine.closed


def test_blocking_search_leaves_the_event_loop_free() -> None:
    class SlowLibrary(Library):
        def search(self, collection: Collection, request: SearchRequest) -> SearchResult:
            time.sleep(0.2)
            return super().search(collection, request)

    ticks = 0

    async def run() -> None:
        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            await build(SlowLibrary()).answer("When was the tower begun?", COLLECTION)
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert ticks >= 5


def test_ids_of_answers_differ() -> None:
    answering = build(Library())
    first, second = ask(answering, "When?"), ask(answering, "When?")
    assert first.id != second.id
    assert replace(first, id="", timings_ms={}) == replace(second, id="", timings_ms={})
