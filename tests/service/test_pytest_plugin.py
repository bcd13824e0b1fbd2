"""The plug-in for pytest: cases and gates are tests, and who does not use it does not notice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CASES = [{"id": f"q{n}", "question": f"What is {n}?", "answer": "yes"} for n in range(40)]
SUITE = """
name: yes
dataset: {file: cases.jsonl}
target: {kind: recorded, file: outputs.jsonl}
metrics: [exact_match]
gates:
  - {metric: exact_match, floor: FLOOR}
"""


@pytest.fixture(autouse=True)
def _suite(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, CASES)), encoding="utf-8")
    rows = [{"id": row["id"], "text": "no" if row["id"] == "q7" else "yes"} for row in CASES]
    (tmp_path / "outputs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    write_suite("yes.eval.yaml", 0.8)


def write_suite(name: str, floor: float) -> None:
    Path(name).write_text(SUITE.replace("FLOOR", str(floor)), encoding="utf-8")


def run(*words: str, code: int) -> str:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "service.evaluation.pytest_plugin",
        "-W",
        "error",
        *words,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_each_case_and_each_gate_is_a_test() -> None:
    said = run("-v", "-rx", code=0)
    assert "41 passed, 1 xfailed" in said
    assert re.search(r"^yes\.eval\.yaml::gate\[exact_match above 0\.8\] PASSED", said, re.M)
    assert "exact_match is 0, below 0.8" in said


def test_gate_on_a_judge_that_nobody_has_checked_is_told_without_a_traceback() -> None:
    text = SUITE.replace("[exact_match]", "[{metric: judge_rubric, with: {model: m}}]")
    text = text.replace("metric: exact_match, floor: FLOOR", "metric: judge_rubric, floor: 0.5")
    Path("yes.eval.yaml").write_text(text, encoding="utf-8")
    said = run(code=2)
    assert "nobody has held it against people" in said
    assert "ragstone eval judge agree LABELS --rubric correctness --model m" in said
    assert "Traceback" not in said


def test_gate_that_fails_prints_its_numbers_and_no_traceback() -> None:
    write_suite("yes.eval.yaml", 0.99)
    said = run(code=1)
    assert "2 failed" in said
    assert "underpowered" in said or "inconclusive" in said
    assert "cases scored: 40 of 40" in said
    assert "Traceback" not in said
    assert ".py:" not in said


@pytest.mark.parametrize(("action", "code"), [("block", 1), ("warn", 0)])
def test_check_is_a_test_that_names_what_fails(action: str, code: int) -> None:
    check = f"checks:\n  - {{check: golden, with: {{metric: exact_match}}, action: {action}}}\n"
    Path("yes.eval.yaml").write_text(SUITE.replace("FLOOR", "0.8") + check, encoding="utf-8")
    said = run("-rx", code=code)
    if action == "warn":
        assert "fail: 1 of 40 golden trials are wrong" in said
        return
    assert "check[golden]: fail: 1 of 40 golden trials are wrong" in said
    assert "q7: exact_match is 0, which must be at least 1; said 'no'" in said
    assert "2 failed" in said, "the check and the verdict"
    assert "Traceback" not in said


def test_perturbed_copies_are_tests_of_their_own_names() -> None:
    Path("reply.py").write_text("def reply(question):\n    return 'yes'\n", encoding="utf-8")
    text = SUITE.replace(
        "{kind: recorded, file: outputs.jsonl}", "{kind: function, call: reply.reply}"
    )
    text += "  - {metric: exact_match, slice: casing, drop: 0.3}\nrobustness: [casing]\n"
    Path("yes.eval.yaml").write_text(text.replace("FLOOR", "0.8"), encoding="utf-8")
    said = run("-v", "-p", "no:cacheprovider", "-o", "pythonpath=.", code=0)
    assert "case[q7~casing] PASSED" in said
    assert "gate[exact_match drops by at most 0.3 on casing] PASSED" in said


def test_strict_case_that_misses_prints_the_case() -> None:
    said = run("--ragstone-strict", "-k", "q7", code=1)
    assert "question: What is 7?" in said
    assert "expected: yes" in said
    assert "answer:   no" in said
    assert "1 failed, 41 deselected" in said
    assert "Traceback" not in said


def test_case_that_is_chosen_is_scored_as_in_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    suite = Path("yes.eval.yaml")
    suite.write_text(
        suite.read_text(encoding="utf-8").replace("match]", "match, semantic_similarity]")
    )
    said = run("--ragstone-strict", "-k", "q7", code=1)
    assert re.search(r"semantic_similarity: -?\d", said), said


def test_suite_of_any_name_is_run_when_it_is_named() -> None:
    Path("yes.eval.yaml").rename("suite.yaml")
    assert "no tests ran" in run(code=5)
    assert "41 passed, 1 xfailed" in run("--ragstone-suite", "suite.yaml", code=0)


def test_suite_that_is_found_and_named_is_run_once() -> None:
    assert "41 passed, 1 xfailed" in run("--ragstone-suite", "yes.eval.yaml", code=0)


def test_broken_suite_is_an_error_with_its_line() -> None:
    Path("yes.eval.yaml").write_text(SUITE.replace("metrics", "metrix"), encoding="utf-8")
    said = run(code=2)
    assert "metrics" in said
    assert "Traceback" not in said


def test_pytest_without_suites_imports_nothing_of_ragstone() -> None:
    Path("yes.eval.yaml").unlink()
    Path("test_light.py").write_text(
        "import sys\n\ndef test_light():\n"
        "    heavy = {'evals', 'infra', 'retrieval', 'pydantic', 'numpy', 'typer', 'lxml'}\n"
        "    assert not heavy & set(sys.modules)\n"
        "    assert 'service.evaluation.pytest_plugin' in sys.modules\n",
        encoding="utf-8",
    )
    assert "1 passed" in run(code=0)


def test_package_registers_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"ragstone": "service.evaluation.pytest_plugin"}
