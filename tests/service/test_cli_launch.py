"""`ragstone launch`: a program on a launcher, watched by a job of a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.settings import load_settings
from service.cli.entry import app
from service.wiring import Components
from service.work.launching import open_launcher

pytestmark = pytest.mark.usefixtures("migrated_here")

RAGSTONE = Path(sys.executable).parent / "ragstone"


@pytest.fixture
def _worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    process = subprocess.Popen([RAGSTONE, "worker"], env=os.environ)
    yield
    process.kill()
    process.wait(10)


def launch(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["launch", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


@pytest.mark.usefixtures("_worker")
def test_launched_program_runs_once_and_its_log_can_be_read() -> None:
    program = "import os, pathlib; pathlib.Path('ran').open('a').write('x'); print(os.environ['A'])"
    words = ("--json", "--key", "one", "--env", "A=found", "--", sys.executable, "-c", program)
    job, again = json.loads(launch(*words).stdout), json.loads(launch(*words).stdout)
    assert job["state"] == "succeeded"
    assert job["result"]["exit_code"] == 0
    assert again["id"] == job["id"]
    assert Path("ran").read_text() == "x"
    parts = Components(load_settings())
    try:
        launcher = open_launcher(parts, "local")
        assert launcher.logs(launcher.reattach(job["result"]["handle"])).text == "found\n"
    finally:
        parts.close()


@pytest.mark.usefixtures("_worker")
def test_failed_program_fails_the_command_with_its_exit_code() -> None:
    said = launch("--", sys.executable, "-c", "raise SystemExit(3)", code=1)
    assert "exit code 3" in said.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--env", "NOVALUE", "--", "true"), "NAME=VALUE"),
        (("--nodes", "0", "--", "true"), "nodes"),
        (("--name", "a b", "--", "true"), "a b"),
    ],
)
def test_wrong_argument_is_named(words: tuple[str, ...], reason: str) -> None:
    assert reason in launch(*words, code=1).stderr


def test_without_a_worker_the_job_waits_and_says_so() -> None:
    said = launch("--detach", "--", "true")
    assert "No worker runs now" in said.stderr
