"""`ragstone pipeline`: run, forecast, status, logs, graph, validate, export, one step."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.settings import load_settings
from service.cli.entry import app
from service.wiring import Components
from service.work import pipelining
from service.work.kinds import open_worker

pytestmark = pytest.mark.usefixtures("migrated_here")

PIPELINE = """
pipeline: letters
description: Counts "letters".
params: {word: "it's a $word {{ 7 }}", times: 2}
steps:
  write:
    run: [sh, -c, 'echo "$0" > outputs/text/text.txt', "${params.word}"]
    outputs: {text: text/letters}
  count:
    python: letters:count
    with: {times: "${params.times}"}
    inputs: {text: text/letters}
    outputs: {count: report/letters}
"""
LETTERS = """
def count(text, count, times):
    found = times * len((text / "text.txt").read_text().strip())
    (count / "count.txt").write_text(str(found))
    return {"found": found}
"""


@pytest.fixture(autouse=True)
def _project() -> None:
    Path("pipeline.yaml").write_text(PIPELINE)
    Path("letters.py").write_text(LETTERS)


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["pipeline", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def states(found: Any) -> dict[str, str]:
    return {step["name"]: step["state"] for step in found["steps"]}


def test_run_says_what_ran_and_the_second_what_did_not() -> None:
    first = run("run")
    assert "letters" in first.stdout
    assert "2 ran" in first.stdout
    assert "write: succeeded" in first.stderr
    again = run_json("run")
    assert states(again) == {"write": "cached", "count": "cached"}
    assert again["steps"][1]["result"] == {"found": 40}
    changed = run_json("run", "-p", "times=3")
    assert states(changed) == {"write": "cached", "count": "succeeded"}
    assert changed["steps"][1]["reason"] == "argument times changed 2 -> 3"


def test_dry_run_forecasts_and_enters_nothing() -> None:
    assert [each["action"] for each in run_json("run", "--dry-run")] == ["run", "run"]
    assert run_json("status") == []
    run("run")
    forecast = run("run", "--dry-run", "--param", "word=x").stdout
    assert "command" in forecast
    assert "if step write changes text/letters" in forecast


def test_status_lists_runs_and_shows_one() -> None:
    assert "No runs" in run("status").stderr
    made = run_json("run")
    assert made["id"] in run("status").stdout
    assert run_json("status", made["id"]) == made
    assert "report/letters@v1" in run("status", made["id"], "--follow").stdout
    wrong = run("status", made["id"][:-1], code=1)
    assert f"did you mean '{made['id']}'" in wrong.stderr


def test_failure_is_shown_with_its_last_words() -> None:
    Path("letters.py").write_text("def count(text, count, times):\n    raise ValueError('lost')\n")
    result = run("run", code=1)
    assert "ValueError: lost" in result.stderr
    assert "1 ran, 1 failed" in result.stdout
    (last,) = run_json("status")
    assert "ValueError: lost" in run("logs", last["id"], "count").stdout
    assert (
        "No step 'cuont'; did you mean 'count'?" in run("logs", last["id"], "cuont", code=1).stderr
    )


def test_validate_answers_with_names() -> None:
    assert "2 steps, sound" in run("validate").stdout
    Path("pipeline.yaml").write_text(PIPELINE.replace("letters:count", "letters:cuont"))
    assert "did you mean 'letters:count'?" in run("validate", code=1).stderr
    assert "did you mean 'pipeline.yaml'?" in run("validate", "pipelin.yaml", code=1).stderr
    assert "NAME=VALUE" in run("run", "-p", "times", code=1).stderr


def test_graph_in_four_forms() -> None:
    assert run("graph").stdout.splitlines()[0] == "●  write -> text/letters"
    assert "flowchart TD" in run("graph", "--format", "mermaid").stdout
    assert "digraph" in run("graph", "--format", "dot").stdout
    found = json.loads(run("graph", "--format", "json").stdout)
    assert found["steps"][1]["needs"] == ["write"]


def test_step_of_a_schedulers_run_is_done_once() -> None:
    early = run("step", "pipeline.yaml", "count", "--run", "manual__1", code=1)
    assert "needs 'write' to succeed first" in early.stderr
    for _ in range(2):
        written = run_json("step", "pipeline.yaml", "write", "--run", "manual__1", "-p", "word=ab")
        assert written["state"] == "succeeded"
    counted = run_json("step", "pipeline.yaml", "count", "--run", "manual__1")
    assert counted["result"] == {"found": 40}, "the first call of a run pins its parameters"
    (only,) = run_json("status")
    assert (only["key"], only["state"]) == ("manual__1", "succeeded")


def test_export_is_a_dag_of_the_same_steps(tmp_path: Path) -> None:
    run("export", "--output", "dag.py", "--schedule", "0 3 * * *")
    text = Path("dag.py").read_text()
    tree = ast.parse(text)
    values = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert ast.literal_eval(values["STEPS"]) == {"write": [], "count": ["write"]}
    assert ast.literal_eval(values["PARAMS"]) == {"word": "it's a $word {{ 7 }}", "times": 2}
    assert ast.literal_eval(values["PIPELINE"]) == str(tmp_path / "pipeline.yaml")
    command = ast.literal_eval(values["COMMAND"])
    assert command.startswith('exec ragstone pipeline step "$PIPELINE_FILE" "$PIPELINE_STEP"')
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {
        "datetime",
        "airflow.providers.standard.operators.bash",
        "airflow.sdk",
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    assert names == {"DAG", "BashOperator", "datetime"}
    assert "'0 3 * * *'" in text


def test_command_of_the_export_runs_a_step(tmp_path: Path) -> None:
    """Run what a task would, as Airflow renders its environment."""
    tree = ast.parse(run("export").stdout)
    command = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMAND"
    )
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIPELINE_FILE": str(tmp_path / "pipeline.yaml"),
        "PIPELINE_RUN": "scheduled__2026-11-24T00:00:00+00:00",
        "PIPELINE_STEP": "write",
        "PIPELINE_PARAM_0": 'a\'b "c" $(touch hacked)',
        "PIPELINE_PARAM_1": "5",
    }
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not Path("hacked").exists()
    (found,) = run_json("status")
    assert found["params"] == {"word": 'a\'b "c" $(touch hacked)', "times": 5}


def test_sigterm_ends_the_programs_of_the_steps(tmp_path: Path) -> None:
    Path("pipeline.yaml").write_text(
        f"pipeline: slow\nsteps:\n  s: {{run: [sh, -c, 'echo $$$$ > {tmp_path}/pid; sleep 60']}}\n"
    )
    program = Path(sys.executable).parent / "ragstone"
    process = subprocess.Popen([program, "pipeline", "run"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    (found,) = run_json("status")
    assert (found["state"], found["steps"][0]["state"]) == ("cancelled", "cancelled")


def test_background_run_waits_for_a_worker_and_can_be_cancelled() -> None:
    made = run_json("run", "--background")
    found = run_json("status", made["id"])
    assert states(found) == {"write": "queued", "count": "waiting"}
    assert run_json("cancel", made["id"])["state"] == "cancelled"


def test_job_starts_a_run_that_workers_finish(tmp_path: Path) -> None:
    settings = load_settings(data_folder=tmp_path / ".ragstone")
    parts = Components(settings)
    worker = open_worker(parts, lazy=True)
    worker.start()
    try:
        file = str(tmp_path / "pipeline.yaml")
        job = parts.jobs.start("pipeline.run", {"file": file, "params": {"times": "3"}})
        started = parts.jobs.wait(job.id).result["run"]
        deadline = time.monotonic() + 60
        while not (done := pipelining.reconciled(parts, started)).is_finished:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        relative = parts.jobs.start("pipeline.run", {"file": "pipeline.yaml"})
        assert "name all of it" in str(parts.jobs.wait(relative.id).error)
    finally:
        worker.stop()
        parts.close()
    assert done.state == "succeeded"
    assert done.steps["count"].result == {"found": 60}
