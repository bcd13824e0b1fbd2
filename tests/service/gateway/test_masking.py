"""Answers of models are told without the personal data in them, wherever their pieces end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model_server
from infra.contracts import Usage
from infra.errors import EngineFailed, Overloaded
from infra.expectations.recognizers import mask
from relayed import call, gateway, opened
from scripted_chat import cut
from service.gateway.masking import EventMasker, MaskedCalls
from service.gateway.replies import GatewayReply, whole
from service.streaming import frame

PARTS = ["ada@example.org", "+49 30 1234567", "411", "WEST", "GB82", "call", " ", "\n", ". "]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=10).map("".join)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SECRET = "Write to ada@example.org or call +49 30 1234567 now"
DONE = b"data: [DONE]\n\n"


def event(index: int = 0, *, reason: str | None = None, **delta: Any) -> bytes:
    return chunk({"index": index, "delta": delta, "finish_reason": reason})


def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
    return frame({"id": "c", "model": "m", "choices": list(choices), **more})


def contents(events: bytes) -> list[dict[str, Any]]:
    lines = [line for line in events.splitlines() if line.startswith(b"data: {")]
    return [orjson.loads(line[6:]) for line in lines]


def told(events: bytes, name: str = "content", index: int = 0) -> str:
    choices = [each for content in contents(events) for each in content["choices"]]
    deltas = [each["delta"] for each in choices if each["index"] == index]
    return "".join(delta.get(name) or "" for delta in deltas)


@settings(max_examples=25, deadline=None)
@given(said=TEXTS, thought=TEXTS, sizes=SIZES, ends=st.booleans(), at_once=st.integers(1, 5))
def test_any_cut_is_masked_as_the_whole(
    said: str, thought: str, sizes: Sequence[int], ends: bool, at_once: int
) -> None:
    events = [event(role="assistant", content="")]
    events += [event(reasoning_content=piece) for piece in cut(thought, sizes)]
    events += [event(content=piece) for piece in cut(said, sizes)]
    events += [event(1, content=piece) for piece in cut(said, sizes[::-1])]
    events += [event(0, reason="stop"), event(1, reason="stop")] if ends else []
    events += [chunk(usage={"prompt_tokens": 1, "completion_tokens": 2}), DONE]
    masker = EventMasker()
    batches = [events[at : at + at_once] for at in range(0, len(events), at_once)]
    passed = b"".join(masker.feed(b"".join(batch)) for batch in batches)
    assert told(passed) == told(passed, index=1) == mask(said)
    assert told(passed, "reasoning_content") == mask(thought)
    assert passed.endswith(DONE)
    assert any(content.get("usage") for content in contents(passed))
    assert all(content["id"] == "c" for content in contents(passed))


def test_a_text_completion_is_masked_as_it_streams() -> None:
    masker = EventMasker()
    pieces = [
        chunk({"index": 0, "text": piece, "finish_reason": None}) for piece in cut(SECRET, [3])
    ]
    passed = b"".join(map(masker.feed, pieces))
    passed += masker.feed(chunk({"index": 0, "text": "", "finish_reason": "length"}) + DONE)
    texts = [choice["text"] for content in contents(passed) for choice in content["choices"]]
    assert "".join(texts) == "Write to <email> or call <phone> now"
    assert "" not in texts


def test_the_end_is_told_in_the_last_event_even_where_it_has_no_delta() -> None:
    masker = EventMasker()
    assert masker.feed(event(content="ada@example.org")) == b""
    passed = masker.feed(chunk({"index": 0, "delta": None, "finish_reason": "stop"}))
    (content,) = contents(passed)
    assert content["choices"] == [
        {"index": 0, "delta": {"content": "<email>"}, "finish_reason": "stop"}
    ]


def test_calls_of_functions_pass_and_what_spells_a_text_out_does_not() -> None:
    calls = [{"index": 0, "function": {"arguments": '{"to": "ada@example.org"}'}}]
    choice = {"index": 0, "delta": {"tool_calls": calls}, "logprobs": {"content": ["ada"]}}
    (content,) = contents(EventMasker().feed(chunk({**choice, "finish_reason": None})))
    assert content["choices"][0]["delta"]["tool_calls"] == calls
    assert content["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("held_by", ["delta", "message"])
def test_every_text_of_a_choice_is_masked_also_beside_a_message(held_by: str) -> None:
    masker = EventMasker()
    pieces = cut(SECRET, [5])
    told_by = [
        {held_by: {"content": each, "audio": {"transcript": each, "data": "UklG"}}, "text": each}
        for each in pieces
    ]
    events = [chunk({"index": 0, **each, "finish_reason": None}) for each in told_by]
    passed = b"".join(map(masker.feed, [*events, event(reason="stop"), DONE]))
    found = [choice for content in contents(passed) for choice in content["choices"]]
    said = [choice.get(held_by) or {} for choice in found]
    heard = [each.get("audio") or {} for each in said]
    for texts in (
        [choice.get("text") for choice in found],
        [each.get("content") for each in said],
        [each.get("transcript") for each in heard],
    ):
        assert "".join(filter(None, texts)) == mask(SECRET)
    assert not any("data" in each for each in heard)


def test_what_is_told_beside_the_text_is_masked_or_left_out() -> None:
    cited = [
        {"type": "url_citation", "url_citation": {"title": SECRET, "url": "https://a.example"}}
    ]
    said = {
        "reasoning_details": [{"type": "reasoning.text", "text": "ada@exam"}],
        "annotations": cited,
    }
    choice = {"index": 0, "finish_reason": None, "content_filter_results": {"found": SECRET}}
    streamed = EventMasker().feed(chunk({**choice, "delta": said}, sources=[SECRET]))
    body = orjson.dumps({"choices": [{**choice, "message": said}], "sources": [SECRET]})

    async def ask() -> bytes:
        return await read(await asked(body))

    (content,) = contents(streamed)
    for told_as, part in ((content, "delta"), (orjson.loads(asyncio.run(ask())), "message")):
        (found,) = told_as["choices"]
        assert told_as["sources"] == [mask(SECRET)]
        assert found["content_filter_results"] == {"found": mask(SECRET)}
        (note,) = found[part].pop("annotations")
        assert note["url_citation"] == {"title": mask(SECRET), "url": "https://a.example"}
        assert found[part] == {}


def test_comments_and_errors_pass_masked_and_nothing_held_is_told_behind_an_error() -> None:
    masker = EventMasker()
    assert masker.feed(b": ping\n\n") == b": ping\n\n"
    assert masker.feed(b": for ada@example.org\n\n") == b": for <email>\n\n"
    assert masker.feed(event(content="+49 30 12345")) == b""
    error = frame({"error": {"message": "gone", "code": "1234567890123456"}})
    assert masker.feed(error) == error
    assert SECRET not in masker.feed(frame({"error": {"message": SECRET}})).decode()


NAMED = {"id": "chatcmpl-4111111111111111", "model": "10.0.0.7:8000/m", "object": "chat.completion"}
ANYWHERE = ["choices", "message", "delta", "content", "usage", "error", "output", "reasoning"]
ANYWHERE += ["metadata", "index", "audio", "transcript", "annotations", "citations", "tool_calls"]
ANYWHERE += ["id", "model", "type", "finish_reason", "prompt_logprobs", "p", SECRET]
LEAVES = st.sampled_from([SECRET, "fine", 0, 1.5, None, True, "ada@example.org"])
FIELDS = st.sampled_from(ANYWHERE)
TREES = st.recursive(
    LEAVES,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(FIELDS, parts, max_size=4),
    max_leaves=25,
)
ANSWERS = st.dictionaries(FIELDS, TREES, min_size=1, max_size=6)


@settings(max_examples=80, deadline=None)
@given(answer=ANSWERS, status=st.sampled_from([200, 400]))
def test_personal_data_anywhere_in_an_answer_passes_neither_whole_nor_as_an_event(
    answer: dict[str, Any], status: int
) -> None:
    async def ask() -> bytes:
        return await read(await asked(orjson.dumps(answer), status=status))

    masker = EventMasker()
    for passed in (asyncio.run(ask()), masker.feed(frame(answer)) + masker.feed(DONE)):
        assert b"ada@" not in passed
        assert b"1234567" not in passed


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["message", "delta", "x", "text", "reasoning"]), max_size=3),
    is_choice=st.booleans(),
    sizes=SIZES,
    said=st.sampled_from([SECRET, "ada@example.org"]),
)
def test_a_text_that_comes_in_pieces_is_masked_wherever_it_stands(
    parts: list[str], is_choice: bool, sizes: Sequence[int], said: str
) -> None:
    """Beside the choices, in one of them or deeper, where nobody knows that it is a text."""
    masker, passed = EventMasker(), b""
    for piece in cut(said, sizes):
        held: Any = piece
        for name in ["said", *parts]:
            held = {name: held}
        choices = [{"index": 0, "finish_reason": None, **(held if is_choice else {})}]
        passed += masker.feed(frame({**NAMED, **({} if is_choice else held), "choices": choices}))
    passed += masker.feed(event(reason="stop") + DONE)
    told_by = dict[str, str]()
    for content in contents(passed):
        for path, text in leaves(content):
            told_by[path] = told_by.get(path, "") + text
    is_told = not parts or (is_choice and parts[-1] in {"message", "delta"} and len(parts) == 1)
    assert (mask(said) in told_by.values()) == is_told
    assert not any("ada@" in text or "1234567" in text for text in told_by.values())


def leaves(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Texts in JSON, each with the way to it."""
    if isinstance(value, str):
        return [(path, value)]
    parts = dict(enumerate(value)) if isinstance(value, list) else value
    inner = parts.items() if isinstance(parts, dict) else ()
    return [found for name, part in inner for found in leaves(part, f"{path}/{name}")]


def test_names_that_a_program_reads_pass_though_they_look_like_numbers_of_a_person() -> None:
    async def ask() -> bytes:
        return await read(await asked(orjson.dumps({**NAMED, "choices": [], "text": SECRET})))

    (streamed,) = contents(EventMasker().feed(frame({**NAMED, "choices": []})))
    assert streamed == {**NAMED, "choices": []}
    assert orjson.loads(asyncio.run(ask())) == {**NAMED, "choices": [], "text": mask(SECRET)}


@pytest.mark.parametrize("kind", [EngineFailed, Overloaded])
def test_the_words_of_a_server_that_fails_are_masked(kind: type[EngineFailed | Overloaded]) -> None:
    async def fail(_: Any) -> GatewayReply:
        raise kind(f"http://models:8000 answered 500: {SECRET}")

    with pytest.raises(kind) as failure:
        asyncio.run(MaskedCalls(fail).run(call()))
    assert failure.value.message == str(failure.value)
    assert str(failure.value) == f"http://models:8000 answered 500: {mask(SECRET)}"


def test_an_answer_that_is_nested_too_deep_to_be_read_is_a_failure() -> None:
    with pytest.raises(EngineFailed, match="too deep"):
        asyncio.run(asked(b'{"output": %b%b}' % (b"[" * 1_000, b"]" * 1_000)))


async def asked(
    body: bytes, *, path: str = "/v1/chat/completions", status: int = 200
) -> GatewayReply:
    async def run(_: Any) -> GatewayReply:
        return GatewayReply(status, {"content-length": str(len(body))}, whole(body))

    return await MaskedCalls(run).run(call(path=path))


async def read(reply: GatewayReply) -> bytes:
    return b"".join([piece async for piece in reply.pieces])


@pytest.mark.parametrize("length", [1, 1_000])
def test_a_whole_answer_is_masked_in_all_its_texts(length: int) -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": SECRET}, {"type": "text", "text": " word" * length}],
        "reasoning": "She is ada@example.org",
    }
    choices = [
        {"index": 0, "message": message, "logprobs": {"content": ["ada"]}},
        {"index": 1, "text": SECRET},
    ]

    async def ask() -> tuple[GatewayReply, bytes]:
        reply = await asked(orjson.dumps({"choices": choices, "prompt_token_ids": [1]}))
        return reply, await read(reply)

    reply, body = asyncio.run(ask())
    assert reply.headers["content-length"] == str(len(body))
    content = json.loads(body)
    first, second = content["choices"]
    masked = "Write to <email> or call <phone> now"
    assert first["message"]["content"] == masked + " word" * length
    assert first["message"]["reasoning"] == "She is <email>"
    assert first["logprobs"] is content["prompt_token_ids"] is None
    assert second["text"] == masked


def test_vectors_pass_untouched() -> None:
    async def ask() -> bytes:
        return await read(await asked(b'{"data": [1]}', path="/v1/embeddings"))

    assert asyncio.run(ask()) == b'{"data": [1]}'


class Endless(AsyncIterator[bytes]):
    """A stream that says what nobody can read, until it is closed."""

    is_closed = False

    async def __anext__(self) -> bytes:
        return b"data: {nonsense\n\n"

    async def aclose(self) -> None:
        self.is_closed = True


def test_a_stream_that_cannot_be_read_ends_with_an_error() -> None:
    pieces = Endless()

    async def run(_: Any) -> GatewayReply:
        return GatewayReply(200, {}, pieces)

    async def ask() -> bytes:
        return await read(await MaskedCalls(run).run(call(stream=True)))

    assert b"engine_failed" in asyncio.run(ask())
    assert pieces.is_closed


def test_usage_and_places_are_as_without_masking() -> None:
    async def ask() -> None:
        with model_server.serving() as server:
            async with opened(gateway(server)) as gate:
                run = MaskedCalls(gate.relay.run).run
                assert b"I am tiny." in await read(await run(call()))
                assert told(await read(await run(call(stream=True)))).startswith("tiny0 tiny1")
                assert [each.usage for each in gate.outcomes] == [Usage(7, 5)] * 2
                assert gate.is_idle

    asyncio.run(ask())
