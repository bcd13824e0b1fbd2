"""A process is killed while interactions wait on disk for a locked database: none is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from migrated import open_migrated
from monitoring.interaction_queue import Waiting
from monitoring.interaction_spool import InteractionSpool
from monitoring.interactions import Interactions, Query

WORKER = Path(__file__).parent / "interactions_worker.py"


def test_what_was_on_disk_when_the_process_was_killed_is_written_by_the_next(
    tmp_path: Path,
) -> None:
    database = open_migrated(tmp_path / "test.db")
    command = [sys.executable, str(WORKER), database.url, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parents[2])}
    with closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            for _ in range(3):
                worker.stdin.write("700\n")
                worker.stdin.flush()
                assert worker.stdout.readline() == "spooled\n"
            worker.kill()
        other.execute("ROLLBACK")
    spool = InteractionSpool(tmp_path / "spool")
    log = Interactions(database, waiting=Waiting(spool=spool))
    log.flush()
    found = [each.id for each in reversed(log.find(Query(), limit=10_000))]
    assert found == [f"answer-{number:05}" for number in range(2_100)]
    assert spool.held_bytes == 0
    database.close()
