"""Log lines: JSON whatever is logged, with the request's id."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from infra.settings import Logging
from infra.telemetry import JsonLines, Lines, configure_logging, request_id
from waiting import until


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    token = request_id.set(None)
    stream = io.StringIO()
    configure_logging(Logging(), stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    request_id.reset(token)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_and_message(log: io.StringIO) -> None:
    logging.getLogger("a.b").warning("%d of %s", 3, "four")
    (line,) = lines(log)
    assert line.pop("time")[:2] == "20"
    assert line == {"level": "WARNING", "logger": "a.b", "message": "3 of four"}


def test_what_a_record_carries_and_the_request_s_id_are_kept(log: io.StringIO) -> None:
    token = request_id.set("req_7")
    logging.getLogger("a").info("x", extra={"count": 2, "color_message": "\x1b", "path": io})
    request_id.reset(token)
    logging.getLogger("a").info("y")
    first, second = lines(log)
    assert (first["request_id"], first["count"]) == ("req_7", 2)
    assert first["path"].startswith("<module 'io'")
    assert "color_message" not in first
    assert "request_id" not in second


def test_an_exception_is_written_with_its_trace(log: io.StringIO) -> None:
    try:
        raise ValueError("no\nmore")
    except ValueError:
        logging.getLogger("a").exception("it broke")
    (line,) = lines(log)
    assert "ValueError: no\nmore" in line["exc_info"]


@pytest.mark.parametrize("text", ["half \ud800 of one", "new\nline", '"quoted"', "\x00"])
def test_no_text_breaks_a_line(text: str) -> None:
    # Not logged: half a character in what pytest keeps of a log ends a run of several processes.
    line = JsonLines().format(logging.makeLogRecord({"msg": text}))
    assert "\n" not in line
    assert json.loads(line)["message"] == text


def test_lines_are_gathered_and_a_warning_brings_them_out_in_order(log: io.StringIO) -> None:
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, Lines)
    logger = logging.getLogger("a")
    with handler.gathering(seconds=3600):
        logger.info("one")
        assert lines(log) == []
        logger.warning("two")
        assert [line["message"] for line in lines(log)] == ["one", "two"]
        logger.info("three")
    assert [line["message"] for line in lines(log)] == ["one", "two", "three"]
    logger.info("four")
    assert lines(log)[-1]["message"] == "four"


def test_what_is_gathered_is_written_soon(log: io.StringIO) -> None:
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, Lines)
    with handler.gathering(seconds=0.01):
        logging.getLogger("a").info("one")
        until(lambda: bool(lines(log)))
