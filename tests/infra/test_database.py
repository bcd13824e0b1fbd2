"""Transactions and migrations, the same on both databases."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.database.migrate import MIGRATIONS, head, upgrade
from infra.database.new_rows import insert_new
from infra.database.schema import doomed_blob, file, metadata
from infra.errors import InvalidConfiguration, StorageFailed


def _digests(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(doomed_blob.c.digest)).scalars())


def test_migrations_give_the_schema_that_the_code_declares(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_empty_database_is_brought_to_the_current_schema(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    upgrade(database)
    with database.read() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == head()
    assert _digests(database) == []
    database.close()


def columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def test_rows_with_and_without_a_column_are_inserted_together_and_none_twice(
    database: Database,
) -> None:
    at = datetime(2026, 11, 30, 12, 30, 0, 250, tzinfo=UTC)
    rest = {"purpose": "assistants", "digest": "sha256:0", "bytes": 2**40, "created_at": at}
    names = ("tenant", "id", "filename", *rest)
    rows = [
        ("acme" if number % 70 == 3 else None, f"file-{number}", f"{number}.txt", *rest.values())
        for number in range(600)
    ]
    with database.write() as connection:
        insert_new(connection, file, {})
        insert_new(
            connection, file, columns(names, [(None, "file-5", "earlier.txt", *rest.values())])
        )
        insert_new(connection, file, columns(names, [*rows, *rows[:2]]))
        found = connection.execute(select(file).order_by(file.c.number)).all()
    others = [f"{number}.txt" for number in range(600) if number != 5]
    assert [row.filename for row in found] == ["earlier.txt", *others]
    assert [row.id for row in found if row.tenant == "acme"] == [
        f"file-{number}" for number in range(3, 600, 70)
    ]
    assert {(row.bytes, row.created_at) for row in found} == {(2**40, at)}


def stored(connection: Connection) -> list[Any]:
    """What the database holds, as the driver reads it: with the types of SQLite."""
    names = [column.name for column in interaction.columns if column.name != "number"]
    found = connection.exec_driver_sql(
        f"SELECT {', '.join(names)} FROM interaction ORDER BY number"
    )
    at = names.index("content")
    return [
        [(type(value), read(value) if place == at else value) for place, value in enumerate(row)]
        for row in found
    ]


def read(content: Any) -> str:
    """What JSON says, in whichever words."""
    return repr(json.loads(content) if isinstance(content, str) else content)


NO_NUMBER = {"numbers": [math.nan, math.inf]}
HALF = {"half": "\ud800"}
CONTENTS: list[dict[Any, Any] | None] = [
    None,
    {"number": 1e-300, "text": "\u20ac", "empty": None, "no": {}},
    {"number": 2**70, 7: True, "least": -(2**63)},
    {"text": 'a\u0000b\n"', "number": 1e22, "whole": -0.0},
    NO_NUMBER,
    HALF,
]


def test_rows_inserted_together_are_stored_as_they_are_one_by_one(database: Database) -> None:
    paris = timezone(timedelta(hours=1))
    moments = [
        datetime(2026, 11, 30, 12, 30, 0, microsecond, tzinfo=zone)
        for microsecond in (0, 7, 250_000)
        for zone in (UTC, paris)
    ]
    names = [column.name for column in interaction.columns if column.name != "number"]
    rows = [
        {
            **dict.fromkeys(names, "text 'quoted' \u20ac"),
            "id": f"call-{number}",
            "at": at,
            "status": number,
            "error": None,
            "tenant": "acme" if number else None,
            "draw": number / 7,
            "prompt_tokens": 7,
            "completion_tokens": 2**31 - 1,
            "cached_tokens": -number,
            "cost_nano": 2**63 - 1 - number,
            "first_byte_seconds": None if number else 1,
            "seconds": 1e-300,
            "support": 1,
            "groundedness": math.inf,
            "content": CONTENTS[number],
        }
        for number, at in enumerate(moments)
    ]
    if not database.is_sqlite:  # which has words for what is no JSON
        rows = [row for row in rows if row["content"] not in (NO_NUMBER, HALF)]
    with database.write() as connection:
        for row in rows:
            connection.execute(insert(interaction).values(row))
        one_by_one = stored(connection)
        connection.execute(delete(interaction))
        insert_new(connection, interaction, {name: [row[name] for row in rows] for name in names})
        assert stored(connection) == one_by_one
    assert len(one_by_one) == len(rows) > 3


def test_of_rows_inserted_together_none_stays_where_one_is_refused(database: Database) -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    names = ("id", "filename", "purpose", "digest", "bytes", "created_at")
    rows = [(f"file-{n}", f"{n}.txt", "assistants", "sha256:0", 1, at) for n in range(9)]
    with pytest.raises(IntegrityError), database.write() as connection:
        insert_new(connection, file, columns(names, [*rows, ("file-9", None, *rows[0][2:])]))
    with database.read() as connection:
        assert connection.execute(select(file)).all() == []


def test_migrating_twice_changes_nothing(database: Database) -> None:
    upgrade(database)


def test_files_of_migrations_are_named_by_their_revisions_in_order() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    assert head() == scripts.get_current_head()
    names = [Path(each.path).name for each in scripts.walk_revisions()]
    assert names == sorted(names, reverse=True)
    assert len(names) >= 16
    assert all(
        name.startswith(f"{each.revision}_")
        for name, each in zip(names, scripts.walk_revisions(), strict=True)
    )


def test_database_that_is_current_is_opened_without_loading_migrations(
    database: Database, database_url: str
) -> None:
    script = (
        "import sys; from infra.database.engine import Database;"
        "from infra.database.migrate import upgrade; upgrade(Database(sys.argv[1]));"
        "assert not {'alembic', 'mako'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, database_url], check=True)


def test_processes_that_start_together_migrate_once(empty_database_url: str) -> None:
    script = (
        "import sys; from infra.database.engine import Database;"
        "from infra.database.migrate import upgrade; upgrade(Database(sys.argv[1]))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, empty_database_url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


def test_database_of_a_newer_release_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InvalidConfiguration, match="another release"):
        upgrade(database)


def test_block_that_raises_leaves_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            connection.execute(insert(doomed_blob).values(digest="sha256:a"))
            raise LookupError

    with pytest.raises(LookupError):
        write_and_fail()
    assert _digests(database) == []


def test_reader_sees_one_moment(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(doomed_blob).values(digest="first"))
    with database.read() as connection:
        before = connection.execute(select(doomed_blob.c.digest)).scalars().all()
        with database.write() as writer:
            writer.execute(insert(doomed_blob).values(digest="second"))
        after = connection.execute(select(doomed_blob.c.digest)).scalars().all()
    assert before == after == ["first"]
    assert sorted(_digests(database)) == ["first", "second"]


def test_writers_of_one_lock_commit_in_turn(database: Database) -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait(10)
        with database.write(lock=7) as connection:
            order.append("second")
            connection.execute(insert(doomed_blob).values(digest="b"))

    thread = threading.Thread(target=second)
    thread.start()
    with database.write(lock=7) as connection:
        entered.set()
        thread.join(0.3)
        order.append("first")
        connection.execute(insert(doomed_blob).values(digest="a"))
    thread.join(10)
    assert order == ["first", "second"]


def test_violated_constraint_is_not_taken_for_a_storage_failure(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(doomed_blob).values(digest="same"))
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(insert(doomed_blob).values(digest="same"))


def test_unreachable_database_is_a_storage_failure(tmp_path: object) -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(StorageFailed, match="Database"), database.read():
        pass


def test_acknowledged_write_is_on_disk_before_it_returns(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with database.read() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1
    database.close()


def test_a_write_that_waits_less_changes_no_other(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    for how, waits in (
        ({"durable": False}, (1, 60_000)),
        ({"patience_seconds": 0.5}, (2, 500)),
        ({"durable": False, "patience_seconds": 0.5}, (1, 500)),
        ({}, (2, 60_000)),
    ):
        with database.write(**how) as connection:
            for pragma, expected in zip(("synchronous", "busy_timeout"), waits, strict=True):
                found = connection.execute(text(f"PRAGMA {pragma}")).scalar()
                assert found == expected, (how, pragma)
            assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1
    database.close()
