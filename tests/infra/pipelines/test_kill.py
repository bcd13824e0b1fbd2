"""Processes that run pipelines are killed at random: outputs are published once all the same."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from infra.artifacts.tables import version
from infra.jobs.definitions import Registry
from infra.jobs.queue import Jobs
from infra.jobs.tables import job_attempt
from infra.pipelines import background
from infra.pipelines.records import Run
from waiting import until

PROCESS = Path(__file__).with_name("worker_process.py")
# No two runs of it leave the same: publishing one step twice would make a second version.
STEP = "echo {name} >> {log}; sleep 0.1; date +%s%N > outputs/made/made.txt"
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(either_bench: Any, database_url: str) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        folder = either_bench.root.parent
        process = subprocess.Popen(
            [sys.executable, str(PROCESS), database_url, str(folder), *words],
            env={**os.environ, "PYTHONPATH": str(PROCESS.parents[3])},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def write_layers(bench: Any, *, layers: int, width: int) -> list[str]:
    """Write a pipeline in which every step reads what those of the layer above made."""
    names, lines = [], ["pipeline: layers", "steps:"]
    above: list[str] = []
    for layer in range(layers):
        here = [f"s{layer}_{number}" for number in range(width)]
        for name in here:
            inputs = ", ".join(f"{each}: dataset/{each}" for each in above)
            script = STEP.format(name=name, log=bench.root / "log")
            lines.append(
                f"  {name}: {{run: [sh, -c, '{script}'], inputs: {{{inputs}}}, "
                f"outputs: {{made: dataset/{name}}}, resources: {{cpu: 0.1}}}}"
            )
        names += here
        above = here
    bench.write("pipeline.yaml", "\n".join(lines) + "\n")
    return names


def versions(bench: Any) -> dict[str, int]:
    with bench.database.read() as connection:
        rows = connection.execute(select(version.c.name).where(version.c.kind == "dataset")).all()
    found: dict[str, int] = {}
    for row in rows:
        found[row.name] = found.get(row.name, 0) + 1
    return found


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("layers", "width", "kills"),
    [
        pytest.param(3, 2, 2, id="short"),
        pytest.param(12, 6, 30, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_workers_publish_every_output_once(
    layers: int, width: int, kills: int, either_bench: Any, start: Start
) -> None:
    bench = either_bench
    chance = random.Random(layers)
    names = write_layers(bench, layers=layers, width=width)
    run = bench.start(mode="jobs")
    background.submit(Jobs(bench.database, Registry()), bench.runs, run.id)
    worker = start()
    for _ in range(kills):
        goal = min(len(names) - 1, len(_log(bench)) + chance.randrange(1, 3))
        until(lambda goal=goal: len(_log(bench)) >= goal)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.2))
        worker.kill()
        worker.wait(10)
        worker = start()
    until(lambda: background.reconcile(bench.runs, run.id).is_finished, seconds=60 + 5 * kills)
    done: Run = bench.runs.get(run.id)
    assert {step.error for step in done.steps.values()} == {None}
    assert done.state == "succeeded"
    assert versions(bench) == dict.fromkeys(names, 1)
    assert sorted(_log(bench)) == sorted(names), "a program that runs is found again, not repeated"
    with bench.database.read() as connection:
        outcomes = connection.scalars(select(job_attempt.c.outcome)).all()
    assert "lost" in outcomes, "no kill hit a running step: the test proved nothing"


def test_run_killed_in_the_foreground_goes_on_with_the_next(
    either_bench: Any, start: Start
) -> None:
    bench = either_bench
    names = write_layers(bench, layers=3, width=2)
    first = bench.start()
    process = start(first.id)
    until(lambda: len(_log(bench)) >= 3)
    process.kill()
    process.wait(10)
    second = bench.run()
    assert second.state == "succeeded"
    assert {step.state for step in second.steps.values()} == {"cached", "succeeded"}
    assert [second.steps[name].state for name in names[:2]] == ["cached", "cached"]
    assert versions(bench) == dict.fromkeys(names, 1)


def _log(bench: Any) -> list[str]:
    path = bench.root / "log"
    return path.read_text().split() if path.exists() else []
