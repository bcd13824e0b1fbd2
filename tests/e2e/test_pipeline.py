"""A pipeline with the real commands: dataset, expectations, transform, artifact; twice, edited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PIPELINE = """
pipeline: faq
params: {minimum_words: 2}
steps:
  dataset:
    run: cp inputs/source/faq.jsonl outputs/raw
    inputs: {source: ./faq.jsonl}
    outputs: {raw: dataset/faq-raw}
  expectations:
    run: ragstone expectations run suite.yaml ${references.raw}
    inputs: {raw: dataset/faq-raw}
  transform:
    python: steps:clean
    with: {minimum_words: "${params.minimum_words}"}
    inputs: {raw: dataset/faq-raw}
    outputs: {clean: dataset/faq-clean}
    after: [expectations]
  report:
    python: reporting:report
    inputs: {clean: dataset/faq-clean}
    outputs: {report: report/faq}
"""
SUITE = """
name: faq
checks:
  - {rule: rows, min: 2}
  - {rule: nulls, column: question}
"""
STEPS = """
import json


def clean(raw, clean, minimum_words):
    rows = [json.loads(line) for line in (raw / "faq.jsonl").read_text().splitlines()]
    kept = [row for row in rows if len(row["answer"].split()) >= minimum_words]
    (clean / "faq.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in kept))
    return {"kept": len(kept)}
"""
REPORTING = """
import json


def report(clean, report):
    rows = (clean / "faq.jsonl").read_text().splitlines()
    (report / "report.json").write_text(json.dumps({"rows": len(rows)}))
"""
ROWS = (
    {"question": "Where does the tower stand?", "answer": "In London."},
    {"question": "What is it built of?", "answer": "Kentish ragstone and lime mortar."},
    {"question": "Who lives there?", "answer": "Ravens"},
)
NAMES = ("dataset", "expectations", "transform", "report")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "reporting.py").write_text(REPORTING)
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def ragstone(*words: str, code: int = 0) -> Any:
    program = Path(sys.executable).parent / "ragstone"
    done = subprocess.run(
        [program, *words, "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def states(run: Any) -> tuple[str, ...]:
    assert [step["name"] for step in run["steps"]] == list(NAMES)
    return tuple(step["state"] for step in run["steps"])


def test_pipeline_runs_what_changed_and_stops_at_data_that_fails(project: Path) -> None:
    first = ragstone("pipeline", "run")
    assert states(first) == ("succeeded",) * 4
    assert first["steps"][2]["result"] == {"kept": 2}
    (verdict,) = ragstone("expectations", "show", "dataset/faq-raw")
    assert verdict["passed"] is True

    second = ragstone("pipeline", "run")
    assert states(second) == ("cached",) * 4
    assert [step["outputs"] for step in second["steps"]] == [
        step["outputs"] for step in first["steps"]
    ]

    steps = project / "steps.py"
    steps.write_text(STEPS.replace(">= minimum_words", "> minimum_words"))
    edited = ragstone("pipeline", "run")
    assert states(edited) == ("cached", "cached", "succeeded", "succeeded")
    assert edited["steps"][2]["reason"] == "code steps.py changed"
    assert edited["steps"][3]["reason"] == "input dataset/faq-clean changed v1 -> v2"
    assert edited["steps"][3]["outputs"] == {"report": "report/faq@v2"}

    (project / "suite.yaml").write_text(SUITE.replace("min: 2", "min: 3"))
    assert states(ragstone("pipeline", "run")) == ("cached", "succeeded", "cached", "cached")

    (project / "suite.yaml").write_text(SUITE.replace("min: 2", "min: 100"))
    failed = ragstone("pipeline", "run", code=1)
    assert states(failed) == ("cached", "failed", "blocked", "blocked")
    assert "at least 100" in failed["steps"][1]["error"]
    assert failed["steps"][2]["outputs"] == {}
