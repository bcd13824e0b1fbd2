"""What a call may use at most: no server writes, or reads, more than was reserved for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import model_server
from infra.errors import InvalidRequest
from infra.gateway_settings import Gateway
from model_server import Asked, Misbehaving, Write
from relayed import answer, call, gateway, opened, run
from service.gateway import estimate
from service.gateway.longest import ANSWER_TOKENS, COMPLETION_TOKENS, Longest, longest_answers

Serve = Callable[..., Misbehaving]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def longest(path: str, *, size: int = 12, context: int | None = None, **body: Any) -> Longest:
    return longest_answers(path, body, prompt=size, context=context)


@given(st.text(max_size=300))
def test_a_prompt_has_no_more_tokens_than_bytes(text: str) -> None:
    size = len(text.encode())
    for body in (
        {"messages": [{"role": "user", "content": text}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]},
        {"prompt": "", "suffix": text},
        {"query": "", "documents": [text]},
        {"messages": [], "functions": [{text: 1}]},
    ):
        assert estimate.prompt_tokens(body) >= size


def test_an_image_counts_the_same_whether_it_is_sent_or_named() -> None:
    def with_image(url: str) -> int:
        parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
        return estimate.prompt_tokens({"messages": [{"role": "user", "content": parts}]})

    sent = with_image("data:image/png;base64," + "A" * 5_000_000)
    assert sent == with_image("https://example.org/a.png")
    assert estimate.IMAGE_TOKENS < sent < estimate.IMAGE_TOKENS + 100


def test_what_is_called_an_image_elsewhere_is_text() -> None:
    tools = [{"properties": {"type": "image_url", "image_url": {"description": "A" * 100_000}}}]
    assert estimate.prompt_tokens({"messages": [], "tools": tools}) > 100_000


@pytest.mark.parametrize("name", ["input", "documents", "prompt", "query"])
def test_a_chat_that_also_looks_like_something_else_is_a_chat(name: str) -> None:
    assert longest(CHAT, max_tokens=7, **{name: "x"}).total == 7


def test_a_text_completion_is_bounded_by_what_its_servers_read() -> None:
    assert longest(TEXT, max_tokens=900, max_completion_tokens=1).total == 900
    assert longest(TEXT, max_completion_tokens=900).total == COMPLETION_TOKENS
    assert longest(TEXT, max_tokens=7, input="x").total == 7


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1], [2], [3]], 3), (["a", 1], 2)],
)
def test_every_prompt_has_its_answers(prompt: Any, prompts: int) -> None:
    body = {"prompt": prompt, "max_tokens": 10, "n": 2}
    assert longest_answers(TEXT, body, prompt=12, context=None).total == 20 * prompts


def test_choices_are_those_that_are_made_not_those_that_are_shown() -> None:
    assert longest(CHAT, max_tokens=10, n=3).total == 30
    assert longest(TEXT, max_tokens=10, n=2, best_of=5).total == 50
    assert longest(CHAT, max_tokens=10, best_of=5).total == 50
    assert longest(CHAT, max_completion_tokens=5, max_tokens=7).total == 5


def test_what_is_not_said_is_bounded_by_the_context_or_by_a_number() -> None:
    assert longest(CHAT).total == ANSWER_TOKENS
    assert longest(CHAT, size=200, context=1000).total == 900
    assert longest(CHAT, size=1800, context=1000).total == 850
    assert longest(CHAT, max_tokens=None).is_asked is False


def test_what_is_embedded_or_ranked_has_no_answer() -> None:
    assert longest("/v1/embeddings", max_tokens=900, input="x").total == 0
    assert longest("/v1/rerank", max_tokens=900, documents=["x"]).total == 0


def told(serve: Serve, route: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    """Return the body that a server got for a call."""
    server = serve()
    options = {name: body.pop(name) for name in ("provider",) if name in body}

    async def ask() -> None:
        async with opened(gateway(server, route=route, **options)) as gate:
            await answer(gate.relay, call(**body))

    run(ask())
    return server.asked[-1].body


def test_the_server_is_told_what_was_reserved(serve: Serve) -> None:
    assert told(serve)["max_tokens"] == ANSWER_TOKENS
    asked = told(serve, max_completion_tokens=9, max_tokens=90_000, n_predict=90_000, n=2)
    assert (asked["max_tokens"], asked["n"]) == (9, 2)
    assert asked.keys().isdisjoint({"max_completion_tokens", "n_predict"})
    text = {"path": TEXT, "prompt": "hi", "messages": None}
    assert told(serve, **text)["max_tokens"] == COMPLETION_TOKENS
    assert "max_completion_tokens" not in told(serve, max_completion_tokens=9, **text)
    embedded = told(serve, path="/v1/embeddings", input="x", route={"kind": "embeddings"})
    assert "max_tokens" not in embedded


def test_openai_is_told_by_the_name_that_it_knows(serve: Serve) -> None:
    asked = told(serve, provider="openai", max_tokens=9)
    assert asked["max_completion_tokens"] == 9
    assert "max_tokens" not in asked


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_with_less_room_than_our_bound_bounds_the_answer_itself(
    serve: Serve, stream: bool
) -> None:
    async def small(server: Misbehaving, asked: Asked, write: Write) -> None:
        error = {"error": {"message": "The maximum context length is 2048 tokens"}}
        is_too_long = "max_tokens" in asked.body
        behaviour = model_server.failing(400, error) if is_too_long else model_server.well
        await behaviour(server, asked, write)

    server = serve(small)

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            assert b"tiny" in await answer(gate.relay, call(stream=stream))
            assert b"2048" in await answer(gate.relay, call(max_tokens=9))

    run(ask())
    bounds = [asked.body.get("max_tokens") for asked in server.asked]
    assert bounds == [ANSWER_TOKENS, None, 9]


def test_many_short_texts_are_not_too_long_together(serve: Serve) -> None:
    server = serve()
    settings: Gateway = gateway(server, route={"kind": "embeddings", "context_tokens": 16})

    async def ask() -> None:
        async with opened(settings) as gate:
            path = "/v1/embeddings"
            await answer(gate.relay, call(path=path, input=["a few words"] * 100))
            with pytest.raises(InvalidRequest, match="16 tokens"):
                await answer(gate.relay, call(path=path, input=["word " * 100] * 3))

    run(ask())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bound", [{}, {"max_tokens": 9}], ids=["ours", "the caller's"])
def test_a_server_that_knows_the_bound_by_its_newer_name_is_told_by_that(
    serve: Serve, stream: bool, bound: dict[str, int]
) -> None:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    error = {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}

    async def newer(server: Misbehaving, asked: Asked, write: Write) -> None:
        is_old = "max_tokens" in asked.body
        behaviour = model_server.failing(400, {"error": error}) if is_old else model_server.well
        await behaviour(server, asked, write)

    server = serve(newer)

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            assert b"tiny" in await answer(gate.relay, call(stream=stream, **bound))

    run(ask())
    first, second = [asked.body for asked in server.asked]
    assert second["max_completion_tokens"] == first["max_tokens"]
    assert "max_tokens" not in second


@pytest.mark.parametrize(
    ("message", "is_asked_again"),
    [
        ("'max_tokens' must be at most 2048", True),
        ("`inputs` tokens + `max_new_tokens` must be <= 2048", True),
        ("the request exceeds the available context size", True),
        ("'m' reads and writes 2,048 tokens in one request", True),
        ("'max_items' is 9; it lies in 1..8", False),
        ("schema keyword 'max_length' is not known in this context", False),
        ("'max_tokens_per_image' is not known", False),
        ("temperature is out of range", False),
    ],
)
def test_only_a_refusal_of_the_length_is_asked_again_without_a_bound(
    serve: Serve, message: str, is_asked_again: bool
) -> None:
    server = serve(model_server.failing(400, {"error": {"message": message}}))

    async def ask() -> None:
        async with opened(gateway(server)) as gate:
            assert message.encode() in await answer(gate.relay, call())

    run(ask())
    assert len(server.asked) == 1 + is_asked_again


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "A" * 900_000, "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 900_000}},
    ],
    ids=["image", "named image", "sound", "film"],
)
def test_what_is_shown_or_heard_makes_no_request_too_long(
    serve: Serve, part: dict[str, Any]
) -> None:
    server = serve()
    settings: Gateway = gateway(server, route={"context_tokens": 2048})
    shown = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]
    read = [{"role": "user", "content": [{"type": "text", "text": "word " * 9_000}, part]}]

    async def ask() -> None:
        async with opened(settings) as gate:
            for bound in ({"max_tokens": 2000}, {}):
                await answer(gate.relay, call(messages=shown, **bound))
            with pytest.raises(InvalidRequest, match="2,048 tokens"):
                await answer(gate.relay, call(messages=read, max_tokens=9))

    run(ask())
    first, second = [asked.body["max_tokens"] for asked in server.asked]
    assert first == 2000
    assert 2000 < second < 2048
