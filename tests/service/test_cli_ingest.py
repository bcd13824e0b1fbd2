"""The terminal's main job: ingest, search, ask, prune, delete; and Ctrl-C in the middle."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from retrieval.sources import Unwalkable
from service.cli import ingest
from service.cli.entry import app
from service.cli.ingest import parse_metadata, parse_value
from service.cli.session import opened

pytestmark = pytest.mark.usefixtures("migrated_here")

INTERRUPT_AFTER_DOCUMENTS = 5
FILES = 150


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "leave.md").write_text(
        "# Leave\n\nEvery employee has 28 days of paid leave a year.\n"
    )
    (folder / "travel.md").write_text("# Travel\n\nFlights need the approval of the head.\n")
    (folder / "empty.md").write_text("")
    return folder


def run(*words: str, code: int = 0, typed: str | None = None) -> Any:
    result = CliRunner().invoke(app, list(words), input=typed)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def test_summary_counts_what_became_of_every_file(folder: Path) -> None:
    first = run_json("ingest", str(folder))
    assert first["collection"] == "default"
    assert (first["added"], first["updated"], first["unchanged"]) == (2, 0, 0)
    assert [skip["code"] for skip in first["skipped"]] == ["empty"]
    assert first["chunks"] == 2
    (folder / "travel.md").write_text("# Travel\n\nTrains are booked in second class.\n")
    second = run_json("ingest", str(folder))
    assert (second["added"], second["updated"], second["unchanged"]) == (0, 1, 1)
    assert second["chunks_per_second"] > 0


def test_commands_do_the_same_on_every_database(
    database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("RAGSTONE_SERVER__PORT", "0")
    assert run_json("ingest", str(folder))["added"] == 2
    assert run_json("ask", "How many days of paid leave are there a year?")["answerable"] is True
    assert run_json("doctor")["healthy"] is True
    run("collections", "documents", "delete", str(folder / "leave.md"), "--yes")
    assert run_json("search", "leave", "--mode", "lexical")["passages"] == []
    assert run_json("collections", "delete", "default", "--yes")["deleted"] is True


def test_summary_for_people_groups_skipped_files_by_reason(folder: Path) -> None:
    for number in range(12):
        (folder / f"blank{number:02}.txt").write_text("")
    output = run("ingest", str(folder)).stdout
    assert output.count("empty: It is an empty file") == 1
    assert "and 5 more" in output
    assert str(folder / "blank00.txt") in output


def test_exit_code_is_1_only_when_nothing_could_be_read(folder: Path) -> None:
    assert run_json("ingest", str(folder / "empty.md"), code=1)["added"] == 0
    run("ingest", str(folder))
    run("ingest", str(folder))


def test_path_that_does_not_exist_is_an_error_before_anything_is_read(folder: Path) -> None:
    result = run("ingest", str(folder), str(folder / "absent"), code=1)
    assert "absent" in result.stderr
    assert run_json("collections", "list") == []


def test_file_whose_name_is_no_text_is_read_under_its_bytes(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/na\xefve\n.txt")).write_text("Naive names are read.")
    assert run_json("ingest", str(folder))["added"] == 3
    listed = {row["source"]: row for row in run_json("collections", "documents", "list")}
    assert listed[f"{folder.as_uri()}/na%EFve%0A.txt"]["filename"] == "na\ufffdve\n.txt"
    assert "na\ufffdve\ufffd.txt" in run("search", "naive names").stdout
    assert run_json("ingest", str(folder))["unchanged"] == 3


def test_argument_that_is_no_text_is_one_line(folder: Path) -> None:
    run("ingest", str(folder))
    for words in (["search", "\udcff"], ["ask", "why \udcff"], ["collections", "show", "\udcff"]):
        assert "\\udcff" in run(*words, code=1).stderr


def test_pruning_removes_what_is_gone_from_the_folder_and_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("The canteen is closed on Fridays.")
    run("ingest", str(folder), str(other))
    (folder / "leave.md").unlink()
    assert run_json("ingest", str(folder))["removed"] == 0
    assert run_json("ingest", str(folder), "--prune")["removed"] == 1
    left = {row["filename"] for row in run_json("collections", "documents", "list")}
    assert left == {"travel.md", "other.txt"}


def test_nothing_is_pruned_when_a_folder_cannot_be_listed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("ingest", str(folder))
    with opened() as parts:
        into = parts.collections.get("default")
        unlisted = [Unwalkable(folder.as_uri(), "Permission denied")]
        outcome = ingest.run(parts, into, unlisted, pruned_folders=[folder])
        assert outcome.summary.removed == 0
        assert parts.collections.statistics(into.id).documents == 2
    assert "Nothing pruned" in capsys.readouterr().err


def test_pipe_in_a_folder_does_not_keep_it_from_being_pruned(folder: Path) -> None:
    run("ingest", str(folder))
    (folder / "leave.md").unlink()
    os.mkfifo(folder / "pipe")
    summary = run_json("ingest", str(folder), "--prune")
    assert summary["removed"] == 1
    assert {skip["code"] for skip in summary["skipped"]} == {"empty", "unreadable"}


def test_search_prints_passages_with_scores_and_spans(folder: Path) -> None:
    run("ingest", str(folder))
    found = run_json("search", "flights approval", "--limit", "1")
    passage = found["passages"][0]
    assert passage["source"] == (folder / "travel.md").as_uri()
    assert 0 < passage["score"] <= 1
    assert passage["end_char"] - passage["start_char"] == len(passage["text"])
    assert found["timings_ms"]["fetch"] >= 0
    output = run("search", "flights approval", "--mode", "lexical").stdout
    assert str(folder / "travel.md") in output
    assert f"characters {passage['start_char']}-{passage['end_char']}" in output


def test_search_keeps_to_its_filters(folder: Path) -> None:
    run("ingest", str(folder / "leave.md"), "--metadata", "year=2025", "--metadata", "kind=rule")
    run("ingest", str(folder / "travel.md"), "--metadata", "year=2026", "--metadata", "kind=rule")

    def names(*filters: str) -> set[str]:
        words = [word for text in filters for word in ("--filter", text)]
        passages = run_json("search", "employee flights", *words)["passages"]
        return {passage["metadata"]["filename"] for passage in passages}

    assert names("kind=rule") == {"leave.md", "travel.md"}
    assert names("kind=rule", "year=2025") == {"leave.md"}
    assert names('{"type": "gt", "key": "year", "value": 2025}') == {"travel.md"}
    wrong = run("search", "employee flights", "--filter", 'year="2025"', code=1)
    assert "holds a number" in wrong.output


def test_malformed_filter_is_a_usage_error(folder: Path) -> None:
    run("ingest", str(folder))
    assert "not JSON" in run("search", "x", "--filter", '{"type"', code=2).stderr
    assert "KEY=VALUE" in run("search", "x", "--filter", "year", code=2).stderr
    assert "KEY=VALUE" in run("ingest", str(folder), "--metadata", "=1", code=2).stderr
    assert "type" in run("search", "x", "--filter", '{"type": "near"}', code=1).stderr


def test_values_are_numbers_and_truths_where_they_look_it() -> None:
    pairs = ["a=1", "b=2.5", "c=true", 'd="1"', "e=x=y", "f=", "g=[1]", "h=null"]
    assert parse_metadata(pairs) == {
        "a": 1,
        "b": 2.5,
        "c": True,
        "d": "1",
        "e": "x=y",
        "f": "",
        "g": "[1]",
        "h": "null",
    }
    assert [parse_value(text) for text in ("007", "NaN", "-Infinity", "9" * 30)] == [
        "007",
        "NaN",
        "-Infinity",
        "9" * 30,
    ]


def test_answer_comes_with_numbered_citations_and_their_spans(folder: Path) -> None:
    run("ingest", str(folder))
    question = "How many days of paid leave does every employee have?"
    answer = run_json("ask", question)
    assert answer["answerable"] is True
    citation = answer["citations"][0]
    assert citation["text"] == "Every employee has 28 days of paid leave a year."
    output = run("ask", question).stdout
    assert "28 days of paid leave a year. [1]" in output
    where = f"characters {citation['start_char']}-{citation['end_char']}"
    assert f"[1] {folder / 'leave.md'}, {where}" in output


def test_no_answer_is_a_result_and_not_a_failure(folder: Path) -> None:
    run("ingest", str(folder))
    answer = run_json("ask", "Who painted the ceiling of the chapel?")
    assert answer["answerable"] is False
    assert answer["reason"]
    assert "No answer:" in run("ask", "Who painted the ceiling of the chapel?").stdout


def test_empty_and_endless_questions_are_refused(folder: Path) -> None:
    run("ingest", str(folder))
    assert "empty" in run("ask", "  ", code=1).stderr
    assert "empty" in run("search", "", code=1).stderr
    assert "characters" in run("ask", "why " * 30_000, code=1).stderr


def test_document_is_deleted_by_path_and_not_found_again(folder: Path) -> None:
    run("ingest", str(folder))
    run("collections", "documents", "delete", str(folder / "travel.md"), code=1, typed="n\n")
    gone = run_json("collections", "documents", "delete", str(folder / "travel.md"), "--yes")
    assert [item["source"] for item in gone] == [(folder / "travel.md").as_uri()]
    assert run_json("search", "flights", "--mode", "lexical")["passages"] == []
    kept = run_json("collections", "documents", "list")
    assert [row["filename"] for row in kept] == ["leave.md"]
    near = run("collections", "documents", "delete", str(folder / "leave.mb"), "--yes", code=1)
    assert "leave.md" in near.stderr
    run("collections", "documents", "delete", kept[0]["id"], "--yes")
    assert run_json("collections", "documents", "list") == []


def test_progress_is_drawn_for_a_person_and_the_data_stays_clean(folder: Path) -> None:
    reader, writer = pty.openpty()
    done = subprocess.run(
        [Path(sys.executable).parent / "ragstone", "ingest", folder, "--json"],
        stdout=subprocess.PIPE,
        stderr=writer,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        timeout=60,
        check=True,
    )
    os.close(writer)
    drawn = b""
    while part := _read_terminal(reader):
        drawn += part
    os.close(reader)
    assert b"/3 documents" in drawn
    assert b"2 chunks" in drawn
    assert json.loads(done.stdout)["added"] == 2


def _read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_ctrl_c_keeps_what_was_committed_and_a_second_run_goes_on(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(FILES):
        text = f"Report {number}. " + f"The value of gauge {number} was read and noted. " * 40
        (corpus / f"report{number:03}.txt").write_text(text)
    command = [Path(sys.executable).parent / "ragstone", "ingest", corpus]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may ignore it
    )
    _wait_for_documents(INTERRUPT_AFTER_DOCUMENTS, process)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what was committed stays; run again to go on" in complaint
    assert "Traceback" not in complaint

    committed = run_json("collections", "show", "default")["completed"]
    assert INTERRUPT_AFTER_DOCUMENTS <= committed < FILES
    again = run_json("ingest", str(corpus))
    assert again["unchanged"] == committed
    assert again["added"] == FILES - committed


def _wait_for_documents(count: int, process: subprocess.Popen[str]) -> None:
    import sqlite3

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if Path(".ragstone/ragstone.db").exists():
            with sqlite3.connect(".ragstone/ragstone.db", timeout=5) as connection:
                try:
                    found = connection.execute("SELECT count(*) FROM document").fetchone()[0]
                except sqlite3.OperationalError:  # the table is about to be made
                    found = 0
            connection.close()
            if found >= count:
                return
        time.sleep(0.01)
    raise AssertionError(f"not {count} documents in time")
