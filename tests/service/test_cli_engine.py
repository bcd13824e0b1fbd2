"""`ragstone engine`, as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests" / "small_engine.py"


def ragstone(*arguments: str, fails: bool = False) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ragstone"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture
def settings_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "ragstone.toml"
    path.write_text(
        f'[engines.small]\nmodel = "m"\npython = "{SMALL}"\nstop_seconds = 2\n'
        f'[engines.broken]\nmodel = "broken"\npython = "{SMALL}"\n'
    )
    yield path
    if json.loads(ragstone("engine", "status", "--json")):
        ragstone("engine", "stop", "small", "--now")


@pytest.mark.usefixtures("settings_file")
def test_engine_is_started_shown_read_and_stopped() -> None:
    started = json.loads(ragstone("engine", "start", "small", "--json"))
    [shown] = json.loads(ragstone("engine", "status", "--json"))
    assert shown["replicas"][0]["pid"] == started["replicas"][0]["pid"]
    assert shown["replicas"][0]["state"] == "ready"
    assert shown["replicas"][0]["running"] == 0
    assert "ready" in ragstone("engine", "status", "small")
    assert "/health" in ragstone("engine", "logs", "small", "-n", "3")
    assert "runs already" in ragstone("engine", "start", "small", fails=True)
    assert "Stopped small" in ragstone("engine", "stop", "small")
    assert json.loads(ragstone("engine", "status", "--json")) == []
    assert "/health" in ragstone("engine", "logs", "small")


@pytest.mark.usefixtures("settings_file")
def test_engine_that_is_just_being_started_is_shown_as_starting() -> None:
    assert "is starting" in ragstone("engine", "start", "small", "--no-wait")
    [shown] = json.loads(ragstone("engine", "status", "small", "--json"))
    assert shown["supervised"]
    assert [each["state"] in {"starting", "ready"} for each in shown["replicas"]] == [True]


@pytest.mark.usefixtures("settings_file")
def test_engine_that_cannot_start_says_why() -> None:
    assert "this model is broken" in ragstone("engine", "start", "broken", fails=True)
    refused = ragstone("engine", "start", "smal", fails=True)
    assert "No engine 'smal'; did you mean 'small'?" in refused
    refused = ragstone("engine", "start", "foo", fails=True)
    assert "No engine 'foo'; there are 'small', 'broken'" in refused
