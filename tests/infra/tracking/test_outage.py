"""A database that cannot be reached for a while: runs go on, and what is lost is counted."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from infra.errors import StorageFailed
from infra.tracking import handle
from infra.tracking.feed import Feed, Flusher
from infra.tracking.tracker import Tracker
from infra.tracking.writing import Writer
from waiting import until


class Switched(Writer):
    """Writes while it is told to."""

    is_on = True

    def write(self, batch: Any, **options: Any) -> bool:
        if not self.is_on:
            raise StorageFailed("Database: switched off")
        return super().write(batch, **options)


@pytest.fixture
def writer(local: Tracker) -> Switched:
    return Switched(local.runs.database, local.run("test").id)


def values(tracker: Tracker, feed: Feed) -> list[float]:
    found: list[float] = tracker.runs.points(feed.run_id, "x").values.tolist()
    return found


def test_nothing_is_lost_or_reordered_over_an_outage(local: Tracker, writer: Switched) -> None:
    run_id = local.runs.list()[0].id
    feed = Feed(run_id, writer)
    for number in range(10):
        feed.buffer.add({"x": number}, step=None, at=0.0)
        writer.is_on = number % 3 == 0
        if writer.is_on:
            feed.drain()
        else:
            with pytest.raises(StorageFailed):
                feed.drain()
    assert values(local, feed) == [float(number) for number in range(10)]
    assert local.runs.get(run_id).dropped == 0


def test_full_buffer_drops_and_counts_while_the_database_is_away(
    local: Tracker, writer: Switched
) -> None:
    run_id = local.runs.list()[0].id
    feed = Feed(run_id, writer, capacity=5)
    writer.is_on = False
    feed.buffer.add({"x": 0}, step=None, at=0.0)
    with pytest.raises(StorageFailed):
        feed.drain()
    for number in range(1, 9):
        feed.buffer.add({"x": number}, step=None, at=0.0)
    writer.is_on = True
    feed.drain()
    assert values(local, feed) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert local.runs.get(run_id).dropped == 4


def test_full_buffer_waits_while_the_database_is_only_slow(
    local: Tracker, writer: Switched
) -> None:
    feed = Feed(local.runs.list()[0].id, writer, capacity=3)

    def log() -> None:
        for number in range(50):
            feed.buffer.add({"x": number}, step=None, at=0.0)

    thread = threading.Thread(target=log)
    thread.start()
    while thread.is_alive():
        feed.drain()
        time.sleep(0.001)
    feed.drain()
    assert values(local, feed) == [float(number) for number in range(50)]


def test_thread_writes_again_once_the_database_is_back(
    local: Tracker,
    writer: Switched,
    caplog: pytest.LogCaptureFixture,
) -> None:
    flusher = Flusher(every_seconds=0.01)
    feed = Feed(local.runs.list()[0].id, writer)
    writer.is_on = False
    feed.buffer.add({"x": 1}, step=None, at=0.0)
    flusher.add(feed)
    until(lambda: "wait to be written" in caplog.text)
    writer.is_on = True
    until(lambda: len(local.runs.series(feed.run_id)) == 1)
    flusher.remove(feed)
    assert caplog.text.count("wait to be written") == 1


def test_end_that_cannot_be_written_is_an_error_unless_there_is_one_already(
    local: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handle, "END_SECONDS", 0.0)
    for error in (None, ValueError("of its own")):
        run = local.run("test")
        switched = Switched(local.runs.database, run.id)
        switched.is_on = False
        broken = handle.Run(run.id, Feed(run.id, switched), run._around, is_owner=True)
        with pytest.raises(StorageFailed if error is None else ValueError):
            _leave(broken, error)
        run.end()
    assert "could not be written" in caplog.text


def _leave(run: handle.Run, error: Exception | None) -> None:
    with run:
        if error is not None:
            raise error


def test_run_ends_once_the_database_is_back(local: Tracker) -> None:
    run = local.run("test")
    switched = Switched(local.runs.database, run.id)
    switched.is_on = False
    late = handle.Run(run.id, Feed(run.id, switched), run._around, is_owner=True)
    late.log({"x": 1.0})
    threading.Timer(0.2, lambda: setattr(switched, "is_on", True)).start()
    late.end()
    assert local.runs.get(run.id).state == "finished"
    assert len(local.runs.points(run.id, "x")) == 1
    run.end()
