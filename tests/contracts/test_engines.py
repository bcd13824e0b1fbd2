"""Laws that every generation engine in the folder obeys."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Literal, cast

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.contracts import Embedder, Passage, Vectors
from infra.errors import EngineFailed, InvalidConfiguration
from infra.plugins import available
from retrieval.embedders import open_embedder
from service.engines import Delta, Engine, EngineContext, Prompt, Turn, count_tokens, open_engine

NAMES = [
    name
    for name in available("service.engines")
    if hasattr(importlib.import_module(f"service.engines.{name}"), "build")
]
TEXTS = (
    "The White Tower was begun in 1078. Its ragstone came by river from Maidstone in Kent. "
    "William the Conqueror ordered the building.",
    "Ravens are kept at the tower. Legend says the kingdom falls if they leave. Six is the least.",
    "名前 | 年\n塔 | 1078\n橋 | 1894",
    "塔始建于1078年。石头来自肯特郡。",
)
QUESTIONS = (
    "When was the White Tower begun?",
    "Who ordered the building of the tower, and where did its ragstone come from?",
    "What is the boiling point of tungsten?",
    "塔始建于哪一年？",
    "?",
    "a\x00b \u202e🙂",
)


def passages(texts: Sequence[str]) -> tuple[Passage, ...]:
    return tuple(
        Passage(
            chunk_id=number,
            document_id=f"file-{number}",
            document_version=1,
            collection="towers",
            source=f"{number}.txt",
            title=f"Text {number}",
            start_char=100,
            end_char=100 + len(text),
            text=text,
            score=1 / (1 + number),
            scores={"dense": 0.5},
        )
        for number, text in enumerate(texts)
    )


class CountingEmbedder:
    """Counts how often it is called, and fails when told to."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.calls = 0
        self.failure: Exception | None = None

    @property
    def identity(self) -> str:
        return self._inner.identity

    @property
    def dimension(self) -> int:
        return self._inner.dimension

    @property
    def max_tokens(self) -> int:
        return self._inner.max_tokens

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return self._inner.embed(texts, kind=kind)

    def token_spans(self, text: str) -> NDArray[np.int32]:
        self.calls += 1
        return self._inner.token_spans(text)


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder(open_embedder("hashing", dimension=64))


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest, embedder: CountingEmbedder) -> Engine:
    return open_engine(request.param, EngineContext(embedder))


def deltas_of(engine: Engine, prompt: Prompt) -> list[Delta]:
    async def collect() -> list[Delta]:
        return [delta async for delta in engine.stream(prompt)]

    return anyio.run(collect)


def closable(engine: Engine, prompt: Prompt) -> AsyncGenerator[Delta, None]:
    return cast("AsyncGenerator[Delta, None]", engine.stream(prompt))


def check_laws(engine: Engine, embedder: Embedder, prompt: Prompt) -> None:
    deltas = deltas_of(engine, prompt)
    text = "".join(delta.text for delta in deltas)
    assert [delta.finish_reason is not None for delta in deltas] == [
        *[False] * (len(deltas) - 1),
        True,
    ]
    last = deltas[-1]
    assert count_tokens(embedder, [text]) <= prompt.max_tokens
    assert last.usage is not None
    assert last.usage.completion_tokens == count_tokens(embedder, [text])
    read = [prompt.question, *(turn.content for turn in prompt.history)]
    read += [passage.text for passage in prompt.passages]
    assert last.usage.prompt_tokens == count_tokens(embedder, read)
    assert last.answerable == (last.reason is None)
    told = ""
    for delta in deltas:
        told += delta.text
        for quote in delta.quotes:
            quoted = prompt.passages[quote.passage].text[quote.start : quote.end]
            assert quoted.strip()
            assert 0 <= quote.answer_start < quote.answer_end <= len(told)
            assert 0 <= quote.support <= 1
            assert last.answerable


def test_folder_holds_the_engines_we_ship() -> None:
    assert NAMES == ["echo", "extractive"]


def test_engine_is_named_after_its_file(engine: Engine) -> None:
    assert engine.name in NAMES
    assert type(engine).__module__ == f"service.engines.{engine.name}"


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("max_tokens", [1, 3, 12, 512])
def test_every_question_ends_in_one_finish_within_its_limits(
    engine: Engine, embedder: CountingEmbedder, question: str, max_tokens: int
) -> None:
    prompt = Prompt(question, passages(TEXTS), max_tokens=max_tokens)
    check_laws(engine, embedder, prompt)


def test_no_passages_are_a_prompt_like_any_other(
    engine: Engine, embedder: CountingEmbedder
) -> None:
    check_laws(engine, embedder, Prompt("When was it begun?", ()))


def test_history_counts_as_prompt(engine: Engine, embedder: CountingEmbedder) -> None:
    history = (Turn("user", "When was the tower begun?"), Turn("assistant", "In 1078."))
    check_laws(engine, embedder, Prompt("And who ordered it?", passages(TEXTS), history))


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=200), max_size=5),
    question=st.text(min_size=1, max_size=80),
    max_tokens=st.integers(1, 60),
)
@pytest.mark.parametrize("name", NAMES)
def test_laws_hold_for_any_text(
    name: str, texts: list[str], question: str, max_tokens: int
) -> None:
    embedder = open_embedder("hashing", dimension=64)
    engine = open_engine(name, EngineContext(embedder))
    check_laws(engine, embedder, Prompt(question, passages(texts), max_tokens=max_tokens))


def test_same_prompt_gives_the_same_answer(engine: Engine) -> None:
    prompt = Prompt(QUESTIONS[1], passages(TEXTS))
    assert deltas_of(engine, prompt) == deltas_of(engine, prompt)


def test_closing_the_stream_stops_the_work(engine: Engine, embedder: CountingEmbedder) -> None:
    async def close_after_the_first() -> None:
        async with aclosing(closable(engine, Prompt(QUESTIONS[1], passages(TEXTS)))) as deltas:
            await anext(deltas)
        calls = embedder.calls
        await anyio.sleep(0.05)
        assert embedder.calls == calls
        with pytest.raises(StopAsyncIteration):
            await anext(deltas)

    anyio.run(close_after_the_first)


def test_cancelling_the_reader_stops_the_work(engine: Engine, embedder: CountingEmbedder) -> None:
    async def cancel_at_once() -> list[Delta]:
        seen: list[Delta] = []
        with anyio.CancelScope() as scope:
            async with aclosing(closable(engine, Prompt(QUESTIONS[1], passages(TEXTS)))) as deltas:
                scope.cancel()
                async for delta in deltas:
                    seen.append(delta)
                    await anyio.lowlevel.checkpoint()
        calls = embedder.calls
        await anyio.sleep(0.05)
        assert embedder.calls == calls
        return seen

    assert all(delta.finish_reason is None for delta in anyio.run(cancel_at_once))


Failing = Callable[[CountingEmbedder], Engine]


def failing_echo(embedder: CountingEmbedder) -> Engine:
    return open_engine("echo", EngineContext(embedder, {"fail_after": 2}))


def failing_extractive(embedder: CountingEmbedder) -> Engine:
    embedder.failure = RuntimeError("out of memory")
    return open_engine("extractive", EngineContext(Sensible(embedder)))


class Sensible(CountingEmbedder):
    """Passes for a model whose vectors mean something, so that the engine asks for them."""

    @property
    def identity(self) -> str:
        return "sha256:unknown-model"


FAILING: dict[str, Failing] = {"echo": failing_echo, "extractive": failing_extractive}


@pytest.mark.parametrize("name", NAMES)
def test_failure_is_engine_failed(name: str, embedder: CountingEmbedder) -> None:
    with pytest.raises(EngineFailed):
        deltas_of(FAILING[name](embedder), Prompt(QUESTIONS[1], passages(TEXTS)))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_is_refused_by_name(name: str, embedder: CountingEmbedder) -> None:
    with pytest.raises(InvalidConfiguration, match="temperature"):
        open_engine(name, EngineContext(embedder, {"temperature": 1}))


@pytest.mark.parametrize("name", NAMES)
def test_closing_the_engine_is_harmless(name: str, embedder: CountingEmbedder) -> None:
    anyio.run(open_engine(name, EngineContext(embedder)).close)
