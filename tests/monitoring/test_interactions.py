"""Interactions are written in batches, survive a slow database, and can be read and erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.contracts import Interaction, Usage
from infra.database.engine import Database
from infra.errors import NotFound, StorageFailed
from migrated import put_schema
from monitoring.interaction_queue import PLAIN_BYTES, InteractionQueue, Waiting
from monitoring.interaction_replay import BATCH
from monitoring.interactions import Interactions, Query
from standing_documents import remove, stand

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def made(number: int, **more: Any) -> Interaction:
    return Interaction(
        id=f"answer-{number}",
        kind="answer",
        at=NOON + timedelta(minutes=number),
        model="rag/handbook",
        outcome="answered",
        status=200,
        usage=Usage(12, 3),
        **more,
    )


def test_what_is_added_can_be_read_after_a_flush(database: Database) -> None:
    stand(database, "file-a", "file-b")
    log = Interactions(database)
    item = made(1, documents=("file-a", "file-b"), content={"question": "Why?"}, support=0.4)
    log.add(item)
    log.flush()
    assert log.get("answer-1") == item


def test_stopping_writes_what_is_left(database: Database) -> None:
    log = Interactions(database, waiting=Waiting(flush_seconds=3600))
    log.start()
    for number in range(1200):
        log.add(made(number))
    log.stop()
    assert len(log.find(Query(), limit=5000)) == 1200


@pytest.mark.parametrize("count", [1, 63, 64, 65, 191])
def test_of_one_id_the_first_is_kept_however_many_are_written_together(
    database: Database, count: int
) -> None:
    log = Interactions(database)
    log.add(made(2, support=0.5))
    log.flush()
    items = [
        replace(made(number), content={"n": number} if number % 2 else None, seconds=number / 7)
        for number in range(count)
    ]
    for item in items:
        log.add(item)
        log.add(replace(item, model="later"))
    log.flush()
    expected = [made(2, support=0.5), *(item for item in items if item.id != "answer-2")]
    assert log.find(Query(), limit=1000) == expected[::-1]


def test_pages_run_from_the_newest_to_the_oldest(database: Database) -> None:
    log = Interactions(database)
    for number in range(5):
        log.add(made(number))
    log.flush()
    first = log.find(Query(), limit=2)
    second = log.find(Query(), limit=9, after=first[-1].id)
    assert [item.id for item in (*first, *second)] == [f"answer-{n}" for n in (4, 3, 2, 1, 0)]


def test_a_query_narrows_by_time_tenant_and_tag(database: Database) -> None:
    log = Interactions(database)
    log.add(made(1, tenant="acme", tag="canary"))
    log.add(made(2, tenant="acme", tag="live"))
    log.add(made(3, tenant="other", tag="canary"))
    log.flush()
    found = log.find(Query(tenant="acme", tag="canary", until=NOON + timedelta(minutes=2)))
    assert [item.id for item in found] == ["answer-1"]


def test_erasing_a_document_removes_its_quotes_and_keeps_the_numbers(database: Database) -> None:
    stand(database, "file-a", "file-b")
    log = Interactions(database)
    log.add(made(1, documents=("file-a",), content={"answer": "the secret"}))
    log.add(made(2, documents=("file-b",), content={"answer": "something else"}))
    assert log.erase_content(["file-a"]) == 1
    assert log.get("answer-1").content is None
    assert log.get("answer-1").usage == Usage(12, 3)
    assert log.get("answer-2").content == {"answer": "something else"}


def test_deleting_removes_rows_and_their_documents(database: Database) -> None:
    stand(database, "file-a")
    log = Interactions(database)
    log.add(made(1, documents=("file-a",)))
    log.add(made(9))
    assert log.delete(Query(until=NOON + timedelta(minutes=5))) == 1
    with pytest.raises(NotFound):
        log.get("answer-1")
    assert log.erase_content(["file-a"]) == 0


def test_what_quotes_a_document_that_is_gone_is_kept_without_its_words(database: Database) -> None:
    stand(database, "file-a", "file-b")
    log = Interactions(database)
    log.add(made(1, documents=("file-a", "file-b"), content={"answer": "the secret"}))
    log.add(made(2, documents=("file-b",), content={"answer": "something else"}))
    remove(database, "file-a")  # and its quotes were looked for before these were written
    log.flush()
    assert log.get("answer-1").content is None
    assert log.get("answer-1").usage == Usage(12, 3)
    assert log.get("answer-2").content == {"answer": "something else"}


@pytest.mark.parametrize(
    ("queue", "kept"),
    [
        (InteractionQueue(capacity=3), 3),
        (InteractionQueue(capacity_bytes=4 * PLAIN_BYTES), 4),
    ],
)
def test_a_full_log_counts_what_it_drops(
    database: Database, queue: InteractionQueue, kept: int
) -> None:
    dropped: Counter[str] = Counter()
    log = Interactions(
        database, waiting=Waiting(queue), count_dropped=lambda why: dropped.update([why])
    )
    for number in range(5):
        log.add(made(number))
    log.flush()
    assert dropped == {"full": 5 - kept}
    assert len(log.find(Query())) == kept
    log.add(made(9))  # there is room again
    log.flush()
    assert dropped == {"full": 5 - kept}


def test_the_bytes_of_content_count(database: Database) -> None:
    dropped: Counter[str] = Counter()
    queue = InteractionQueue(capacity_bytes=10 * PLAIN_BYTES)
    log = Interactions(
        database, waiting=Waiting(queue), count_dropped=lambda why: dropped.update([why])
    )
    log.add(made(1, content={"answer": "x" * 10 * PLAIN_BYTES}))
    log.add(made(2, content={"answer": "x" * 8 * PLAIN_BYTES}))
    log.flush()
    assert dropped == {"full": 1}
    assert [item.id for item in log.find(Query())] == ["answer-2"]


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


BAD: dict[str, dict[str, Any]] = {
    "a time that is none": {"at": 7},
    "nothing where something must be": {"status": None},
    "a number that no column holds": {"status": -(2**70)},
    "content that is no JSON": {"content": {"answer": object()}},
    "half a surrogate pair": {"tenant": "canary\ud800"},
    "no usage": {"usage": None},
    "a text that is none": {"model": 7},
    "content that is too deep": {"content": {"answer": deep(5_000)}},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_one_bad_interaction_keeps_no_other_from_being_written(
    database: Database, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    dropped: Counter[str] = Counter()
    log = Interactions(
        database,
        waiting=Waiting(flush_seconds=0.01),
        count_dropped=lambda why: dropped.update([why]),
    )
    log.start()
    for number in range(3):
        log.add(made(number))
    log.add(replace(made(7, tenant="canary-tenant"), **bad))
    log.add(made(8))
    log.stop()
    assert [item.id for item in log.find(Query())] == [
        "answer-8",
        "answer-2",
        "answer-1",
        "answer-0",
    ]
    assert dropped == {"refused": 1}
    assert "did not take" in caplog.text
    assert "canary" not in caplog.text


def test_what_is_too_long_or_too_large_is_brought_within_bounds(database: Database) -> None:
    log = Interactions(database)
    item = made(1, cached_tokens=2**31, cost_nano=2**70, tag="t" * 70, error="a\x00b")
    log.add(replace(item, model="m" * 300, usage=Usage(2**40, 2**90)))
    log.flush()
    kept = log.get("answer-1")
    assert (kept.model, kept.tag) == ("m" * 255, "t" * 64)
    assert kept.usage == Usage(2**31 - 1, 2**31 - 1)
    assert (kept.cached_tokens, kept.cost_nano) == (2**31 - 1, 2**63 - 1)
    assert kept.error == "a\N{REPLACEMENT CHARACTER}b"


def test_what_was_written_before_a_connection_broke_is_written_once(database: Database) -> None:
    log = Interactions(database)
    log.add(made(1, tag="first"))
    log.flush()
    log.add(made(1, tag="again"))
    log.add(made(2))
    log.flush()
    assert [(item.id, item.tag) for item in log.find(Query())] == [
        ("answer-2", ""),
        ("answer-1", "first"),
    ]


class Failing(Database):
    """Is down but for so many transactions."""

    up_for = 0

    @contextmanager
    def write(self, **options: Any) -> Iterator[Any]:
        if self.up_for == 0:
            raise StorageFailed("Database: down")
        self.up_for -= 1
        with super().write(**options) as connection:
            yield connection


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    database = Failing(f"sqlite:///{put_schema(tmp_path / 'test.db')}")
    yield database
    database.close()


def test_what_a_database_that_is_down_does_not_take_is_kept_in_order(failing: Failing) -> None:
    log = Interactions(failing)
    for number in range(3):
        log.add(made(number))
    with pytest.raises(StorageFailed):
        log.flush()
    failing.up_for = 1
    log.flush()
    assert [item.id for item in log.find(Query())] == ["answer-2", "answer-1", "answer-0"]


def test_personal_data_are_looked_for_once_however_often_it_is_tried(failing: Failing) -> None:
    masked: Counter[str] = Counter()

    def mask(text: str) -> str:
        masked.update([text])
        return text.upper()

    log = Interactions(failing, mask=mask)
    for number in range(3):
        log.add(made(number, content={"answer": f"text {number}"}))
    log.add(made(3, content={"answer": object()}))  # keeps them from being written together
    for _ in range(5):
        with pytest.raises(StorageFailed):
            log.flush()
    failing.up_for = 10
    log.flush()
    assert masked == {f"text {number}": 1 for number in range(3)}
    assert log.get("answer-2").content == {"answer": "TEXT 2"}


def test_what_is_refused_is_counted_once_though_the_database_goes_down_then(
    failing: Failing,
) -> None:
    dropped: Counter[str] = Counter()
    log = Interactions(failing, count_dropped=lambda why: dropped.update([why]))
    for number in range(3):
        content = {"answer": object() if number == 1 else "x"}
        log.add(made(number, content=content))
    failing.up_for = 3  # for all of them together, for the first alone, for the bad one alone
    with pytest.raises(StorageFailed):
        log.flush()
    assert dropped == {"refused": 1}
    failing.up_for = 1
    log.flush()
    assert dropped == {"refused": 1}
    assert [item.id for item in log.find(Query())] == ["answer-2", "answer-0"]


def test_more_than_a_batch_of_bad_ones_is_dropped_at_once(database: Database) -> None:
    dropped: Counter[str] = Counter()
    log = Interactions(database, count_dropped=lambda why: dropped.update([why]))
    for number in range(BATCH + 1):
        log.add(replace(made(number), usage=None))  # type: ignore[arg-type]
    log.add(made(BATCH + 1))
    log.flush()
    assert dropped == {"refused": BATCH + 1}
    assert [item.id for item in log.find(Query())] == [f"answer-{BATCH + 1}"]


def test_what_is_too_old_goes(database: Database) -> None:
    log = Interactions(database, keep=timedelta(days=1))
    log.add(made(0))
    log.add(made(60))
    log.flush()
    assert log.expire(NOON + timedelta(days=1, minutes=30)) == 1
    assert [item.id for item in log.find(Query())] == ["answer-60"]
