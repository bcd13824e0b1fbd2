"""Evaluations are killed at random; what was finished is not repeated, and nothing is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import orjson

from evals import records

WORKER = Path(__file__).parent / "evals_worker.py"
CONCURRENCY = 4
CASES = 200
KILLS = 4


def start(folder: Path) -> subprocess.Popen[bytes]:
    paths = (WORKER.parents[2], WORKER.parents[1], WORKER.parent)
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )


def prepared(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"id": f"q{number}", "question": f"What is {number}?"} for number in range(CASES)]
    (folder / "cases.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return folder


def finished(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("journals/*.jsonl"))


def test_killed_run_goes_on_without_asking_or_judging_again(tmp_path: Path) -> None:
    chance = random.Random(11)
    folder = prepared(tmp_path / "killed")
    done = 0
    for _ in range(KILLS):
        process = start(folder)
        goal = done + chance.randint(8, CASES // (KILLS + 2))
        deadline = time.monotonic() + 120
        while finished(folder) < goal:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        process.wait(10)
        assert finished(folder) >= max(done, goal)  # what was written outlives the kill
        done = finished(folder)
    assert start(folder).wait(120) == 0
    assert list((folder / "journals").iterdir()) == []

    whole = prepared(tmp_path / "whole")
    assert start(whole).wait(120) == 0
    for name in records.SAME:
        assert (folder / "results" / name).read_bytes() == (whole / "results" / name).read_bytes()
    for name in ("asked", "judged"):
        counts = Counter((folder / name).read_text("utf-8").split())
        assert len(counts) == CASES
        # Only what was under way when a kill came is done again.
        assert sum(counts.values()) <= CASES + KILLS * CONCURRENCY
        assert max(counts.values()) <= 1 + KILLS
