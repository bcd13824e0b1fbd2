"""Streams of server-sent events over what goes on: followed to the end, quiet, failing, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from infra.errors import NotFound, StorageFailed
from service import streaming
from service.streaming import Look, follow


class Script:
    """Answers one look after another."""

    def __init__(self, *looks: Look[str] | Exception) -> None:
        self._looks = list(looks)

    def look(self) -> Look[str]:
        found = self._looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def write(self, event: str) -> bytes:
        return event.encode()


def told(script: Script, *, is_stopping: Callable[[], bool] = lambda: False) -> list[bytes]:
    async def run() -> list[bytes]:
        stream = await follow(script, is_stopping=is_stopping, failure="error")
        return [bytes(piece) async for piece in stream.body_iterator]  # type: ignore[arg-type]

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "POLL_SECONDS", 0.0)


def test_looks_are_told_in_their_order_to_the_end() -> None:
    script = Script(Look("ab", has_more=True), Look(""), Look("c"), Look("d", is_over=True))
    assert told(script) == [b"a", b"b", b"c", b"d"]


def test_a_quiet_stream_says_that_it_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", -1.0)
    assert told(Script(Look(""), Look("", is_over=True))) == [b": still there\n\n"]


def test_an_error_is_raised_before_the_stream_and_told_within_it() -> None:
    with pytest.raises(NotFound):
        told(Script(NotFound("job", "j")))
    event, last = told(Script(Look("a"), StorageFailed("the disk is full")))
    assert event == b"a"
    assert last.startswith(b"event: error\ndata: {")
    assert b"storage_unavailable" in last


def test_a_stream_ends_when_the_server_is_about_to_stop() -> None:
    assert told(Script(Look("a")), is_stopping=lambda: True) == [b"a"]
