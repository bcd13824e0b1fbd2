"""Interactions wait on disk for a database that is down, and none that is there is lost."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, Engine, event

from infra.contracts import Interaction, Usage
from infra.database.engine import Database
from infra.errors import StorageFailed
from migrated import open_migrated
from monitoring import interaction_spool
from monitoring.interaction_queue import PLAIN_BYTES, InteractionQueue, Waiting
from monitoring.interaction_replay import BATCH, Replay
from monitoring.interaction_rows import Row, as_rows
from monitoring.interaction_spool import InteractionSpool
from monitoring.interactions import Interactions, Query
from standing_documents import remove, stand
from waiting import until

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def made(number: int, **more: Any) -> Interaction:
    return Interaction(
        id=f"answer-{number:05}",
        kind="answer",
        at=NOON + timedelta(seconds=number),
        model="rag/handbook",
        outcome="answered",
        status=200,
        usage=Usage(12, 3),
        **more,
    )


def written(database: Database) -> list[str]:
    """Ids in the order of writing."""
    found = Interactions(database).find(Query(), limit=100_000)
    return [each.id for each in reversed(found)]


def ids(*numbers: int) -> list[str]:
    return [f"answer-{number:05}" for number in numbers]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of every writer."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def gone(path: Path) -> Iterator[None]:
    """Have the table away."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE interaction RENAME TO elsewhere")
        yield
        other.execute("ALTER TABLE elsewhere RENAME TO interaction")


class Coming(InteractionQueue):
    """Takes the next interaction once all that waited are on disk, after each try that failed."""

    is_due = False
    taken = 0

    def first(self, most: int) -> Sequence[Interaction]:
        found = super().first(most)
        if self.is_due and not found:
            self.is_due = False
            self.taken += 1
            self.put(made(self.taken))
        return found


class Noting(Database):
    """Notes before each try to write how many interactions are in memory alone."""

    def __init__(self, url: str, queue: Coming) -> None:
        super().__init__(url)
        self.queue = queue
        self.waited: list[int] = []

    @contextmanager
    def write(self, **how: Any) -> Iterator[Connection]:
        self.waited.append(len(self.queue))
        try:
            with super().write(**how) as connection:
                yield connection
        except StorageFailed:
            self.queue.is_due = True
            raise


class Kept:
    """A log with a spool, as the service has it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "test.db"
        self.database = Database(f"sqlite:///{self.path}")
        self.spool = InteractionSpool(folder / "spool", **options)
        self.dropped: Counter[str] = Counter()
        self.log = Interactions(
            self.database,
            waiting=Waiting(
                InteractionQueue(capacity_bytes=100 * PLAIN_BYTES), self.spool, 0.02, 0.02
            ),
            count_dropped=lambda why: self.dropped.update([why]),
        )

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.log.add(made(number))

    def die(self) -> None:
        """Leave everything as a process that is killed does; its locks go with it."""
        self.spool.close()
        self.database.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    open_migrated(tmp_path / "test.db").close()
    found = Kept(tmp_path)
    yield found
    found.database.close()


@pytest.mark.parametrize("down", [locked, gone])
def test_what_comes_while_the_database_is_down_is_on_disk_and_written_in_order_later(
    kept: Kept, down: Any
) -> None:
    kept.log.start()
    with down(kept.path):
        kept.add(*range(5))
        until(lambda: kept.log.spooled_bytes() > 0, seconds=20)
        for number in range(5, 9):
            kept.add(number)
            until(lambda number=number: len(spooled(kept.spool)) == number + 1, seconds=20)
        assert len(kept.spool.paths()) <= 2, "not a file for each look"
    kept.add(9)
    until(lambda: kept.log.spooled_bytes() == 0, seconds=20)
    kept.log.stop()
    assert written(kept.database) == ids(*range(10))
    assert kept.dropped == {}


def test_while_the_database_is_down_what_comes_waits_for_no_further_try_of_it(
    tmp_path: Path,
) -> None:
    open_migrated(tmp_path / "test.db").close()
    queue, spool = Coming(), InteractionSpool(tmp_path / "spool")
    database = Noting(f"sqlite:///{tmp_path / 'test.db'}", queue)
    log = Interactions(database, waiting=Waiting(queue, spool, 0.02, 0.02))
    with locked(tmp_path / "test.db"):
        log.add(made(0))
        log.start()
        until(lambda: len(database.waited) > 4, seconds=20)
    log.stop()
    assert database.waited[:5] == [1, 0, 0, 0, 0]
    log.flush()
    assert written(database) == ids(*range(queue.taken + 1))
    assert queue.taken >= 4
    database.close()


def spooled(spool: InteractionSpool) -> list[bytes]:
    """What is on disk, read beside whoever writes it."""
    return b"".join(path.read_bytes() for path in spool.paths()).splitlines()


def test_stopping_while_the_database_is_down_puts_what_is_left_on_disk(
    kept: Kept, tmp_path: Path
) -> None:
    kept.add(1, 2, 3)
    with locked(kept.path):
        kept.log.stop()
    assert written(kept.database) == []
    again = Kept(tmp_path)
    again.add(4)
    again.log.flush()
    assert written(kept.database) == ids(1, 2, 3, 4)
    assert list((tmp_path / "spool").iterdir()) == []
    again.die()


def test_what_was_replayed_before_the_process_was_killed_is_written_once(
    kept: Kept, tmp_path: Path
) -> None:
    kept.add(*range(3))
    with locked(kept.path):
        kept.log.stop()
    (segment,) = (tmp_path / "spool").iterdir()
    data = segment.read_bytes()
    kept.log.flush()
    segment.write_bytes(data)  # as if it was killed between the commit and the removal
    again = Kept(tmp_path)
    again.log.flush()
    assert written(kept.database) == ids(0, 1, 2)
    again.die()


def test_a_torn_line_is_no_record_and_a_damaged_one_is_counted(kept: Kept, tmp_path: Path) -> None:
    kept.add(*range(3))
    with locked(kept.path):
        kept.log.stop()
    (segment,) = (tmp_path / "spool").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    middle = lines[1].replace(b"answer-00001", b"answer-00007")
    segment.write_bytes(lines[0] + middle + lines[2] + lines[0][:-20])
    again = Kept(tmp_path)
    again.log.flush()
    assert written(kept.database) == ids(0, 2)
    assert again.dropped == {"refused": 1}
    again.die()


def test_disk_and_memory_are_bounded_and_what_has_no_room_is_counted(tmp_path: Path) -> None:
    open_migrated(tmp_path / "test.db").close()
    kept = Kept(tmp_path, most_bytes=20_000)
    with locked(kept.path):
        kept.log.start()
        until(lambda: kept.add(0) or kept.log.spooled_bytes() > 0, seconds=20)
        for number in range(1, 2_000):
            kept.add(number)
        until(lambda: kept.log.spooled_bytes() > 10_000, seconds=20)
        assert kept.log.spooled_bytes() <= 20_000
        assert kept.dropped["full"] > 1_500
    kept.log.stop()
    assert len(set(written(kept.database))) + kept.dropped["full"] >= 2_000
    assert kept.log.spooled_bytes() == 0
    kept.die()


def test_files_of_a_living_process_are_left_to_it(kept: Kept, tmp_path: Path) -> None:
    assert kept.spool.append([b"mine"])
    other = InteractionSpool(tmp_path / "spool")
    assert read(other) == []
    assert other.held_bytes == kept.spool.held_bytes > 0
    kept.spool.close()
    assert read(other) == [[([b"mine"], 0)]]


def read(spool: InteractionSpool) -> list[list[tuple[list[bytes], int]]]:
    """Batches of the records of each file that nobody else has in hand."""
    found = []
    for path in spool.paths():
        with spool.taken(path) as segment:
            if segment is not None:
                found.append(list(segment.records(4)))
    return found


def test_a_file_that_cannot_be_read_keeps_nothing_else_from_being_written_and_is_told_once(
    kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool" / "0.spool").mkdir(parents=True)
    assert kept.spool.append([line(0)])
    kept.log.start()
    for number in (1, 2):
        kept.add(number)
        until(lambda number=number: len(written(kept.database)) == number + 1, seconds=20)
    kept.log.flush()
    with pytest.raises(StorageFailed, match="on disk, unread"):
        kept.log.delete(Query())
    with pytest.raises(StorageFailed, match="on disk, unread"):
        kept.log.erase_content(["file-a"])
    kept.log.stop()
    assert written(kept.database) == ids(0, 1, 2)
    assert caplog.text.count("unread") == 1


def test_what_a_release_with_other_columns_put_on_disk_is_written(kept: Kept) -> None:
    record = orjson.loads(line(1))
    del record["values"]["review"]
    record["values"]["mood"] = "sunny"
    assert kept.spool.append([orjson.dumps(record), line(2)]) == 2
    kept.log.flush()
    assert written(kept.database) == ids(1, 2)
    assert kept.log.get("answer-00001") == made(1)


def line(number: int) -> bytes:
    return next(iter(as_rows([made(number)], mask=str))).encoded()


def test_connections_that_write_many_rows_keep_few_of_their_large_statements(kept: Kept) -> None:
    used: set[tuple[int, int]] = set()

    def connecting(_dialect: Any, record: Any, _given: Any, named: dict[str, Any]) -> None:
        record.info["statements"] = named["cached_statements"]

    def executing(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT OR FAIL"):
            waits = connection.connection.execute("PRAGMA synchronous").fetchone()[0]
            used.add((waits, connection.info["statements"]))

    listened = (("do_connect", connecting), ("before_cursor_execute", executing))
    for name, listener in listened:
        event.listen(Engine, name, listener)
    try:
        assert kept.spool.append([line(0)])
        kept.add(1)
        kept.log.flush()
    finally:
        for name, listener in listened:
            event.remove(Engine, name, listener)
    assert written(kept.database) == ids(0, 1)
    assert used == {(1, 32), (2, 32)}  # of the disk, which is waited for, and of memory


def test_only_what_removes_fails_while_the_database_is_down(kept: Kept) -> None:
    kept.add(1)
    with gone(kept.path):
        kept.log.flush()
        assert kept.log.waiting == 0
        assert kept.log.spooled_bytes() > 0
        kept.add(2)
        with pytest.raises(StorageFailed):
            kept.log.delete(Query())
        with pytest.raises(StorageFailed):
            kept.log.erase_content(["file-a"])
    kept.log.flush()
    assert written(kept.database) == ids(1, 2)


def test_an_outage_is_told_once(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    kept.log.start()
    with gone(kept.path):
        for number in range(3):
            kept.add(number)
            until(lambda number=number: len(spooled(kept.spool)) == number + 1, seconds=20)
    until(lambda: kept.log.spooled_bytes() == 0, seconds=20)
    kept.log.stop()
    assert caplog.text.count("wait for the database") == 1


def test_records_that_nobody_can_read_are_counted_and_told_once(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    assert kept.spool.append([b"{}", line(0), b"no JSON", line(1)])
    (path,) = kept.spool.paths()
    path.write_bytes(b"0 torn by a disk\n" + path.read_bytes())
    with gone(kept.path):
        for _ in range(3):
            kept.log.flush()
    assert kept.dropped == {"refused": 3}
    kept.log.flush()
    assert kept.dropped == {"refused": 3}
    assert caplog.text.count("damaged") == 1
    assert written(kept.database) == ids(0, 1)


def test_a_file_is_gone_on_with_where_the_database_took_no_more(tmp_path: Path) -> None:
    spool, wrote = InteractionSpool(tmp_path), list[str]()
    assert spool.append([line(number) for number in range(2 * BATCH)])
    replay = Replay(spool, count_lost=lambda: None)

    def write(rows: Sequence[Row], done: Callable[[int], None]) -> None:
        if len(wrote) == BATCH + 3:
            raise StorageFailed("down")
        taken = rows[: 3 if wrote else BATCH]
        wrote.extend(row.id for row in taken)
        done(len(taken))
        if len(taken) < len(rows):
            raise StorageFailed("down")

    def write_all(rows: Sequence[Row], _: Callable[[int], None]) -> None:
        wrote.extend(row.id for row in rows)

    for _ in range(2):
        with pytest.raises(StorageFailed):
            replay.run(write)
    assert replay.run(write_all) is None
    assert wrote == ids(*range(2 * BATCH))
    assert spool.paths() == []


def test_a_line_that_a_failing_disk_tore_spoils_no_record_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = InteractionSpool(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    def write_half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        fail()

    with monkeypatch.context() as broken:
        broken.setattr(interaction_spool, "_write", write_half)
        broken.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="gone"):
            spool.append([b"first"])
    assert spool.append([b"second"])
    assert [batch for segment in read(spool) for batch in segment] == [([b"second"], 0)]


def test_records_come_back_in_order_over_many_files_and_batches(tmp_path: Path) -> None:
    spool = InteractionSpool(tmp_path, segment_bytes=1_000)
    wrote = [b"%d" % number * 20 for number in range(300)]
    for first in range(0, 300, 7):
        assert spool.append(wrote[first : first + 7]) == len(wrote[first : first + 7])
    assert len(list(tmp_path.iterdir())) > 5
    batches = [each for segment in read(spool) for each in segment]
    assert {damaged for _, damaged in batches} == {0}
    assert max(len(records) for records, _ in batches) == 4
    assert [each for records, _ in batches for each in records] == wrote


def test_a_disk_that_is_full_keeps_interactions_in_memory(
    kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    kept.add(1)
    with locked(kept.path), pytest.raises(Exception, match="locked"):
        kept.log.stop()
    assert "takes no interactions" in caplog.text
    kept.log.flush()
    assert written(kept.database) == ids(1)


def test_words_of_a_document_that_was_removed_meanwhile_are_not_brought_back(
    kept: Kept, tmp_path: Path
) -> None:
    stand(kept.database, "file-a")
    kept.log.add(made(1, documents=("file-a",), content={"answer": "the secret"}))
    kept.log.add(made(2, content={"answer": float("nan")}))
    with locked(kept.path):
        kept.log.stop()
    remove(kept.database, "file-a")
    kept.log.flush()
    assert kept.log.get("answer-00001").content is None
    assert kept.log.get("answer-00002").usage == Usage(12, 3)


def test_what_no_column_takes_is_refused_on_its_way_to_disk(kept: Kept) -> None:
    for number in range(9):
        kept.log.add(made(number, content={"answer": object()} if number % 2 else None))
    with locked(kept.path):
        kept.log.stop()
    kept.log.flush()
    assert kept.dropped == {"refused": 4}
    assert written(kept.database) == ids(0, 2, 4, 6, 8)


def test_only_its_owner_can_read_what_is_on_disk(kept: Kept, tmp_path: Path) -> None:
    assert kept.spool.append([b"mine"])
    (path,) = (tmp_path / "spool").iterdir()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(tmp_path / "spool").st_mode & 0o777 == 0o700
