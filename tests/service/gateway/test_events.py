"""Streams of events, cut anywhere: passed on byte for byte, the usage read."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.contracts import Usage
from infra.errors import EngineFailed
from model_server import data, event
from service.gateway.events import MAX_EVENT_BYTES, Events

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
BODY = b"".join(
    [
        b": hello\n\n",
        event("a", 0),
        data({"choices": [{"delta": {"content": 'the "usage": {"x": 1} of [DONE]'}}]}),
        event("b", 1, last=True),
    ]
)
TAIL = data({"choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"


def pass_on(events: Events, whole: bytes, cuts: list[int]) -> bytes:
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    pieces = [whole[a:b] for a, b in zip(places, places[1:], strict=False)]
    return b"".join(events.feed(piece) for piece in pieces)


@given(st.lists(st.integers(min_value=0), max_size=12), st.booleans(), st.booleans())
def test_wherever_it_is_cut_the_same_comes_out(cuts: list[int], strip: bool, windows: bool) -> None:
    body, tail, done = BODY, TAIL, DONE
    if windows:
        body, tail, done = (part.replace(b"\n", b"\r\n") for part in (body, tail, done))
    events = Events(strip_usage=strip)
    assert pass_on(events, body + tail + done, cuts) == body + (b"" if strip else tail) + done
    assert events.usage == Usage(3, 2)
    assert events.cached_tokens == 1
    assert events.finish_reason == "stop"
    assert events.is_done
    assert events.error is None


def test_usage_beside_a_choice_is_not_stripped() -> None:
    whole = data({"choices": [{"delta": {}}], "usage": USAGE}) + data({"usage": None})
    events = Events(strip_usage=True)
    assert events.feed(whole) == whole
    assert events.usage == Usage(3, 2)


def test_an_error_event_is_noted() -> None:
    events = Events(strip_usage=True)
    whole = data({"error": {"message": "gone", "code": "engine_dead"}})
    assert events.feed(whole) == whole
    assert events.error == "engine_dead"


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(EngineFailed, match="something else"):
        Events(strip_usage=True).feed(b"<html>\n\n")


def test_an_event_without_end_is_refused() -> None:
    events = Events(strip_usage=True)
    for _ in range(MAX_EVENT_BYTES // 2**16):
        assert events.feed(b"a" * 2**16) == b""
    with pytest.raises(EngineFailed, match="without end"):
        events.feed(b"a")


@given(st.binary(max_size=200))
def test_no_bytes_break_it(content: bytes) -> None:
    with contextlib.suppress(EngineFailed):
        Events(strip_usage=True).feed(b"data: " + content + b'"usage"\n\n')


def test_a_large_answer_s_usage_is_read_from_its_end() -> None:
    from service.gateway.answers import LARGE_BYTES, _read_end

    vectors = [{"embedding": [0.5] * 1000, "index": number} for number in range(100)]
    body = orjson.dumps({"data": vectors, "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert len(body) > LARGE_BYTES
    assert _read_end(body).usage == Usage(8, 0)
    assert _read_end(b'{"data": "usage"}').usage is None
