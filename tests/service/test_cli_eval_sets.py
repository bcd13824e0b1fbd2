"""`ragstone eval build`, `review` and `leakage`: from documents to cases that run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.contracts import Interaction
from judge_server import judging
from service.cli.entry import app
from service.cli.session import opened

DOCUMENTS = {
    "bridges": {
        "arno.md": "The Arno bridge was opened in May 1890. It has 48 arches of stone.",
        "lech.md": "The Lech bridge was designed by Ada Lane. It is closed at night.",
        "main.md": "The Main bridge was built in 1950. Trains cross it on platform 4 every hour.",
    },
    "space": {
        "vela.md": "The Vela telescope was launched in 1977. Its mirror has 12 segments of glass.",
    },
}
SUITE = """
name: bridges
dataset: {file: cases.jsonl}
target: {kind: collection, collection: bridges}
metrics: [contains, abstention, retrieval_recall]
"""


def invoke(*arguments: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, list(arguments))
    assert found.exit_code == code, found.output
    return found.stdout if code == 0 and "--json" in arguments else found.output


def rows(path: str = "cases.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True)
def _documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")
    for collection, files in DOCUMENTS.items():
        Path(collection).mkdir()
        for name, text in files.items():
            Path(collection, name).write_text(text, encoding="utf-8")
        invoke("ingest", collection, "-c", collection)
    Path("suite.yaml").write_text(SUITE, encoding="utf-8")


def test_cases_are_built_reviewed_and_run() -> None:
    invoke("eval", "build", "cases.jsonl", "-c", "bridges", "--count", "3", "--unanswerable", "1")
    built = rows()
    assert len(built) == 4
    assert built[3]["question"].startswith("When was the Vela telescope launched")
    assert "None of the 4 cases" in invoke("eval", "run", "suite.yaml", code=3)
    invoke("eval", "run", "suite.yaml", "--unreviewed")
    invoke("eval", "review", "cases.jsonl", "--accept", built[0]["id"], "--reject", built[1]["id"])
    invoke("eval", "review", "cases.jsonl", "--edit", built[2]["id"], "--question", "Where to?")
    found = json.loads(invoke("eval", "validate", "suite.yaml", "--json"))
    assert (found["cases"], found["left_out"]) == (2, 2)
    shown = json.loads(invoke("eval", "review", "cases.jsonl", "--state", "edited", "--json"))
    assert [row["question"] for row in shown] == ["Where to?"]
    invoke("eval", "review", "cases.jsonl", "--accept-all")
    assert [row["review_state"] for row in rows()] == ["accepted", "rejected", "edited", "accepted"]
    found = json.loads(invoke("eval", "run", "suite.yaml", "--json"))
    assert found["trials"] == 3


def test_built_cases_are_the_same_again_and_decisions_stay() -> None:
    build = ("eval", "build", "cases.jsonl", "-c", "bridges", "--count", "3")
    invoke(*build)
    first = rows()
    Path("cases.jsonl").unlink()
    invoke(*build)
    assert rows() == first
    invoke("eval", "review", "cases.jsonl", "--reject", first[0]["id"])
    invoke(*build)
    assert [row["review_state"] for row in rows()] == ["rejected", "proposed", "proposed"]


def test_answers_stand_in_the_stored_documents_where_the_cases_say() -> None:
    invoke("eval", "build", "cases.jsonl", "-c", "bridges", "--count", "3")
    with opened() as parts:
        for row in rows():
            stored = parts.documents.read_text(
                row["document"], row["document_version"], row["answer_start"], row["answer_end"]
            )
            assert stored == row["answer"]


def test_unanswerable_ones_need_another_collection() -> None:
    invoke("collections", "delete", "space", "--yes")
    said = invoke(*("eval", "build", "cases.jsonl", "-c", "bridges", "--unanswerable", "1"), code=1)
    assert "'bridges' is the only one" in said
    assert not Path("cases.jsonl").exists()


def test_too_little_to_ask_about_is_said() -> None:
    said = invoke("eval", "build", "cases.jsonl", "-c", "bridges", "--count", "40")
    assert "There was nothing to ask 40 questions about" in said


def test_what_was_asked_becomes_cases_without_personal_data() -> None:
    assert "telemetry.content" in invoke(
        *("eval", "build", "cases.jsonl", "--interactions"), code=1
    )
    with opened() as parts:
        for number, question in enumerate(["May ada@example.org cross?", "Is it open?"]):
            parts.interactions.add(
                Interaction(
                    f"answer-{number}",
                    "answer",
                    datetime(2026, 1, 1, tzinfo=UTC),
                    "rag/bridges",
                    "answered",
                    200,
                    content={"question": question, "answer": "Yes."},
                )
            )
        parts.interactions.flush()
    invoke("eval", "build", "cases.jsonl", "--interactions", "--model", "rag/bridges")
    assert {row["question"] for row in rows()} == {"May <email> cross?", "Is it open?"}


def test_cases_that_a_model_was_trained_on_are_named() -> None:
    invoke("eval", "build", "cases.jsonl", "-c", "bridges", "--count", "3")
    invoke("eval", "review", "cases.jsonl", "--accept-all")
    Path("train.jsonl").write_text(json.dumps({"text": "Unrelated."}) + "\n", encoding="utf-8")
    assert "0 of 3 cases" in invoke("eval", "leakage", "suite.yaml", "train.jsonl")
    leaked = rows()[1]
    line = {"messages": [{"role": "user", "content": leaked["question"].upper()}]}
    Path("train.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    said = json.loads(invoke("eval", "leakage", "suite.yaml", "train.jsonl", "--json", code=1))
    assert [leak["case"] for leak in said["leaks"]] == [leaked["id"]]
    invoke("eval", "leakage", "suite.yaml", "train.jsonl", "--allow", "1")
    invoke("datasets", "put", "train.jsonl", "chats")
    said = invoke("eval", "leakage", "suite.yaml", "dataset/chats@v1", code=1)
    assert "1 of 3 cases are among 1 training rows" in said
    invoke("eval", "leakage", "suite.yaml", "dataset/chat", code=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "cases.jsonl"), "--collection NAME or --interactions"),
        (("build", "cases.jsonl", "-c", "bridgs"), "did you mean 'bridges'"),
        (("review", "none.jsonl"), "No file of cases"),
        (("review", "suite.yaml"), "line 2"),
        (("review", "cases.jsonl", "--state", "done"), "proposed, accepted, rejected, edited"),
        (("review", "cases.jsonl", "--edit", "a"), "goes with --question"),
        (("review", "cases.jsonl", "--accept", "none"), "No case 'none'"),
    ],
)
def test_wrong_wishes_are_told_in_words(arguments: tuple[str, ...], words: str) -> None:
    Path("cases.jsonl").write_text('{"id": "a", "question": "?"}\n', encoding="utf-8")
    assert words in invoke("eval", *arguments, code=1)


def test_model_writes_cases_once_and_what_it_cannot_ground_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "The Arno bridge was opened in May 1890 by the mayor, and trains use it now and then."
    Path("bridges", "long.md").write_text(long, encoding="utf-8")
    invoke("ingest", "bridges", "-c", "bridges")
    build = ("eval", "build", "cases.jsonl", "-c", "bridges", "--writer", "writer-1")
    with judging() as server:
        monkeypatch.setenv("JUDGE_URL", server.url)
        server.says = json.dumps({"query": "When was it opened?", "answer": "In May 1890."})
        invoke(*build)
        assert [row["answer"] for row in rows()] == ["In May 1890."]
        assert rows()[0]["relevant"].endswith("long.md")
        assert len(server.asked) == 1, "the other documents are too short to ask about"
        first = rows()
    Path("cases.jsonl").unlink()
    invoke(*build)  # the server is gone; what it said is remembered
    assert rows() == first
    assert "build them without --writer" in invoke(*build, "--unanswerable", "1", code=1)
