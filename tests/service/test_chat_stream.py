"""The stream of a chat completion is read the same however its bytes were cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import Usage
from infra.errors import EngineFailed
from service.chat_stream import CallPiece, ChatPiece, End, TextPiece, Used, read_chat


def chunk(**delta: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def event(data: object) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


STREAM = b"".join(
    [
        b": keep-alive\n\n",
        chunk(role="assistant", content=""),
        chunk(content="Grüße "),
        chunk(content="aus\n\nder Ferne"),
        chunk(
            tool_calls=[{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]
        ),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a":1}'}}]),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
        event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}),
        b"data: [DONE]\n\n",
    ]
)
MEANING: list[ChatPiece] = [
    TextPiece("Grüße "),
    TextPiece("aus\n\nder Ferne"),
    CallPiece(0, "call_1", "f", ""),
    CallPiece(0, "", "", '{"a":1}'),
    End("tool_calls"),
    Used(Usage(7, 5), 0),
]


def read(pieces: Sequence[bytes]) -> list[ChatPiece]:
    async def collect() -> list[ChatPiece]:
        async def given_pieces() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return [piece async for piece in read_chat(given_pieces())]

    return asyncio.run(collect())


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_cuts_do_not_change_what_is_read(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert read([STREAM[a:b] for a, b in zip(edges, edges[1:], strict=False)]) == MEANING


@given(st.lists(st.integers(0, 700), max_size=40))
def test_lines_may_end_in_carriage_returns(cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", b"\r\n")
    edges = [0, *sorted(cuts), len(stream)]
    assert read([stream[a:b] for a, b in zip(edges, edges[1:], strict=False)]) == MEANING


@pytest.mark.parametrize(
    "garbage",
    [b"data: {\n\n", b"data: 7\n\n", b'data: {"choices": [7]}\n\n', b'data: {"choices": 7}\n\n'],
)
def test_garbage_is_a_failure_of_the_engine(garbage: bytes) -> None:
    with pytest.raises(EngineFailed, match="no chat completion chunk"):
        read([garbage])


def test_an_error_in_the_stream_is_told_with_its_message() -> None:
    with pytest.raises(EngineFailed, match="out of memory"):
        read([event({"error": {"message": "out of memory"}})])


def test_an_event_without_end_is_not_kept_without_bound() -> None:
    with pytest.raises(EngineFailed, match="event of over"):
        read([b"data: " + b"x" * 1_000_000] * 10)
