"""`ragstone demo` with the real model: right, cited, unanswerable ones refused, incremental."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.cli.corpus import ABOUT_RAGSTONE, UNANSWERABLE, documentation

pytestmark = pytest.mark.model

PROGRAM = Path(sys.executable).parent / "ragstone"
MOST_CHUNKS = 700
DOCUMENTS = ("docx/handbook-1p.docx", "xlsx/stanley-cups.xlsx", "nasty/zero_bytes.pdf")
EXPECTED = {
    "What happens to the documents when the process is killed during an ingest?": (
        "no document is half there",
        "explanation/index-as-view.md",
    ),
    "Where are API keys stored?": ("SHA-256", "explanation/security.md"),
    "How do I use PostgreSQL instead of SQLite?": ("database_url", "how-to/use-postgresql.md"),
}


def run(*words: str, prefix: tuple[str, ...] = ()) -> Any:
    done = subprocess.run(
        [*prefix, PROGRAM, "demo", "--json", *words],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nothing")


@pytest.fixture(scope="module")
def report(folder: Path, nothing: Path) -> Any:
    return run("--folder", str(folder), "--documents", str(nothing))


def test_expectations_are_about_the_questions_that_are_asked() -> None:
    assert set(EXPECTED) == set(ABOUT_RAGSTONE)


@pytest.mark.parametrize("question", ABOUT_RAGSTONE)
def test_answer_is_right_and_cites_the_page_that_says_it(report: Any, question: str) -> None:
    answer = next(item for item in report["answers"] if item["question"] == question)
    words, page = EXPECTED[question]
    assert words in answer["text"]
    assert answer["citations"][0]["source"] == (documentation() / page).as_uri()
    for citation in answer["citations"]:
        told = answer["text"][citation["answer_start"] : citation["answer_end"]]
        assert told == citation["text"]


def test_question_without_an_answer_gets_none(report: Any) -> None:
    last = report["answers"][-1]
    assert last["question"] == UNANSWERABLE
    assert last["answerable"] is False
    assert last["citations"] == []


def test_every_step_is_timed(report: Any) -> None:
    names = [step["name"] for step in report["steps"]]
    assert names[0] == "load the model"
    assert sum(name.startswith("answer: ") for name in names) == len(report["answers"])
    assert all(step["seconds"] > 0 for step in report["steps"])
    assert {"embed", "search", "generate", "total"} <= set(report["answers"][0]["timings_ms"])


def test_what_is_read_before_the_first_answer_stays_little(report: Any) -> None:
    # Seconds are the machine's, and benchmarks have them; how much there is to embed is ours.
    assert 300 < report["ingests"][0]["chunks"] <= MOST_CHUNKS


def test_second_run_reads_nothing_again_and_needs_no_network(
    report: Any, folder: Path, nothing: Path
) -> None:
    isolate = ("unshare", "--map-root-user", "--net")
    possible = (
        shutil.which("unshare") and not subprocess.run([*isolate, "true"], check=False).returncode
    )
    again = run(
        "--folder", str(folder), "--documents", str(nothing), prefix=isolate if possible else ()
    )
    assert [outcome["added"] + outcome["updated"] for outcome in again["ingests"]] == [0, 0]
    assert again["ingests"][0]["unchanged"] == report["ingests"][0]["added"]
    first, second = (
        [(answer["text"], answer["answerable"]) for answer in run["answers"]]
        for run in (report, again)
    )
    assert first == second


def test_shared_documents_are_read_and_asked_about(
    report: Any, folder: Path, tmp_path: Path, shared_data: Path
) -> None:
    for name in DOCUMENTS:
        shutil.copy(shared_data / "documents" / name, tmp_path)
    found = run("--folder", str(folder), "--documents", str(tmp_path))
    answers = {answer["question"]: answer for answer in found["answers"]}
    trustees = answers["Who appoints standing trustees?"]
    assert "The United States Trustee appoints" in trustees["text"]
    assert trustees["citations"][0]["source"].endswith("handbook-1p.docx")
    assert "13" in answers["How many Stanley Cups have the Maple Leafs won?"]["text"]
    assert [skip["code"] for skip in found["ingests"][1]["skipped"]] == ["empty"]


def test_demo_leaves_the_users_own_data_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "demo", "--documents", str(tmp_path / "absent")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert not (tmp_path / ".ragstone").exists()


def test_shipped_suite_passes_over_the_demo(report: Any, folder: Path) -> None:
    words = [PROGRAM, "eval", "run", "demo", "--json"]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
        env={**os.environ, "RAGSTONE_DATA_FOLDER": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"] == "pass"
    assert len(found["decisions"]) == 4
    assert found["failures"] == 0
