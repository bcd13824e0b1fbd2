"""Several processes at once, and one that is killed."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.database.engine import Database
from infra.tracking.tracker import Tracker

SCRIPT = Path(__file__).parent / "logging_process.py"
ROOT = Path(__file__).parents[3]
PROCESSES = 8
STEPS = 600
"""Of each, as `logging_process` has it."""
LOST_SECONDS = 1.0


def start(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.thorough
def test_eight_processes_log_at_once_and_nothing_is_lost(
    tracker: Tracker, database_url: str
) -> None:
    with tracker.run("test", name="shared") as shared:
        started = [start(database_url, "many", str(n), shared.id) for n in range(PROCESSES)]
        for process in started:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    steps = list(range(STEPS))
    for number in range(PROCESSES):
        run = tracker.runs.find(f"process {number}")
        assert run.state == "finished"
        assert tracker.runs.points(run.id, "a").values.tolist() == steps
        assert tracker.runs.points(run.id, "b").values.tolist() == [-step for step in steps]
        rank = tracker.runs.points(shared.id, f"rank{number}")
        assert rank.steps.tolist() == rank.values.tolist() == steps
    together = tracker.runs.points(shared.id, "all")
    assert len(together) == PROCESSES * len(steps)
    for number in range(PROCESSES):  # each one's points are in the order in which it logged them
        assert together.steps[together.values == number].tolist() == steps
    (series,) = [each for each in tracker.runs.series(shared.id) if each.name == "all"]
    assert (series.count, series.low, series.high) == (PROCESSES * len(steps), 0.0, PROCESSES - 1)


def test_killed_process_loses_at_most_the_last_second(local: Tracker) -> None:
    kill_three(local, local.runs.database.url)


@pytest.mark.slow  # the same, once more with the other database
def test_killed_process_loses_at_most_the_last_second_on_postgresql(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    kill_three(Tracker(database), postgresql_url)
    database.close()


def kill_three(tracker: Tracker, database_url: str) -> None:
    started = [start(database_url, "until killed") for _ in range(3)]
    ids = [process.stdout.readline().strip() for process in started if process.stdout]
    time.sleep(1.3)
    lost = []  # by three, as the machine may stand still for a moment
    for process, run_id in zip(started, ids, strict=True):
        killed_at = time.time()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        points = tracker.runs.points(run_id, "n")
        assert points.values.tolist() == list(range(len(points)))
        lost.append(killed_at - float(points.times[-1]))
        record = tracker.runs.get(run_id)
        assert record.state == "lost"
        assert record.finished_at is None
    assert statistics.median(lost) <= LOST_SECONDS, lost
