"""Interactions are written in batches, survive a slow database, and can be read and erased."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.contracts import Interaction, Usage
from infra.database.engine import Database
from infra.errors import NotFound, StorageFailed
from migrated import put_schema
from monitoring.interactions import Interactions, Query

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
    log = Interactions(database)
    item = made(1, documents=("file-a", "file-b"), content={"question": "Why?"}, support=0.4)
    log.add(item)
    log.flush()
    assert log.get("answer-1") == item


def test_stopping_writes_what_is_left(database: Database) -> None:
    log = Interactions(database, flush_seconds=3600)
    log.start()
    for number in range(1200):
        log.add(made(number))
    log.stop()
    assert len(log.find(Query(), limit=5000)) == 1200


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
    log = Interactions(database)
    log.add(made(1, documents=("file-a",), content={"answer": "the secret"}))
    log.add(made(2, documents=("file-b",), content={"answer": "something else"}))
    assert log.erase_content(["file-a"]) == 1
    assert log.get("answer-1").content is None
    assert log.get("answer-1").usage == Usage(12, 3)
    assert log.get("answer-2").content == {"answer": "something else"}


def test_deleting_removes_rows_and_their_documents(database: Database) -> None:
    log = Interactions(database)
    log.add(made(1, documents=("file-a",)))
    log.add(made(9))
    assert log.delete(Query(until=NOON + timedelta(minutes=5))) == 1
    with pytest.raises(NotFound):
        log.get("answer-1")
    assert log.erase_content(["file-a"]) == 0


def test_a_full_log_counts_what_it_drops(database: Database) -> None:
    log = Interactions(database, capacity=3)
    for number in range(5):
        log.add(made(number))
    log.flush()
    assert log.dropped == 2
    assert len(log.find(Query())) == 3


def test_what_the_database_refuses_is_kept_in_order(tmp_path: Any) -> None:
    class Failing(Database):
        is_down = True

        @contextmanager
        def write(self, **options: Any) -> Iterator[Any]:
            if self.is_down:
                raise StorageFailed("Database: down")
            with super().write(**options) as connection:
                yield connection

    database = Failing(f"sqlite:///{put_schema(tmp_path / 'test.db')}")
    log = Interactions(database)
    for number in range(3):
        log.add(made(number))
    with pytest.raises(StorageFailed):
        log.flush()
    database.is_down = False
    log.flush()
    assert [item.id for item in log.find(Query())] == ["answer-2", "answer-1", "answer-0"]
    database.close()


def test_what_is_too_old_goes(database: Database) -> None:
    log = Interactions(database, keep=timedelta(days=1))
    log.add(made(0))
    log.add(made(60))
    assert log.expire(NOON + timedelta(days=1, minutes=30)) == 1
    assert [item.id for item in log.find(Query())] == ["answer-60"]
