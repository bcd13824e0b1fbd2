"""`ragstone sync` at the terminal and as a job: by hand, by name, by the clock, and killed."""

from __future__ import annotations

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

from infra.errors import InvalidRequest
from service.cli.entry import app
from service.cli.session import opened
from service.work.syncing import cron_of

pytestmark = pytest.mark.usefixtures("migrated_here")

COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for name in ("leave", "travel", "bread"):
        (folder / f"{name}.md").write_text(f"# {name}\n\nAll about {name}.\n")
    return folder


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["sync", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def test_folder_is_synced_by_its_path(folder: Path) -> None:
    assert run_json("handbook", "-c", "rules")["added"] == 3
    (folder / "bread.md").unlink()
    summary = run_json(str(folder), "-c", "rules")
    assert (summary["removed"], summary["unchanged"], summary["collection"]) == (1, 2, "rules")


def test_dry_run_tells_and_changes_nothing(folder: Path) -> None:
    told = run_json("handbook", "-c", "rules", "--dry-run")
    assert (len(told["added"]), told["removed"], told["dry_run"]) == (3, [], True)
    with opened() as parts:
        assert list(parts.collections.list().items) == []
    assert "to add           3" in run("handbook", "--dry-run").stdout


def test_deletions_beyond_the_share_are_refused(folder: Path) -> None:
    run("handbook")
    for name in ("leave", "travel"):
        (folder / f"{name}.md").unlink()
    assert "--allow-deletes" in run("handbook", code=1).stderr
    assert run_json("handbook", "--allow-deletes")["removed"] == 2


def test_named_source_is_scheduled_run_as_a_job_and_removed(folder: Path) -> None:
    row = run_json(
        "add", "rules", "handbook", "-c", "rules", "--every", "15m", "--metadata", "team=all"
    )
    assert (row["cron"], row["source"]) == ("*/15 * * * *", str(folder))
    assert [each["name"] for each in run_json("list")] == ["rules"]
    assert "There is a source 'rules'" in run("add", "rules", "handbook", code=1).stderr
    run("rules", "--background")
    with opened() as parts:
        parts.worker.start()
        [job] = parts.jobs.list(name="sync")
        deadline = time.monotonic() + 60
        while not (job := parts.jobs.get(job.id)).is_finished and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (job.state, job.result["added"]) == ("succeeded", 3)
        into = parts.collections.get("rules")
        listed = parts.documents.list(into).items
        assert {each.metadata["team"] for each in listed} == {"all"}
    assert run_json("rules")["added"] == 0
    assert "3 documents" in run("remove", "rules", "--documents").stdout
    assert run_json("list") == []


def test_place_with_a_password_is_not_stored() -> None:
    error = run("add", "x", "https://user:swordfish@example.org/sitemap.xml", code=1).stderr
    assert "password" in error
    assert "swordfish" not in error
    data = b"".join(path.read_bytes() for path in Path(".ragstone").glob("ragstone.db*"))
    assert b"swordfish" not in data


def test_source_that_is_not_there_says_so() -> None:
    assert "No folder" in run("nowhere", code=1).stderr
    assert "not a public address" in run("http://127.0.0.1:9/sitemap.xml", code=1).stderr
    assert "No source 'nowhere'" in run("remove", "nowhere", code=1).stderr


def test_watched_folder_is_followed_until_interrupted(folder: Path) -> None:
    watching = subprocess.Popen(
        [*COMMAND, "sync", "handbook", "--watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    try:
        _await_line(watching.stdout, '"added": 3')
        (folder / "new.md").write_text("# New\n\nAll new.\n")
        _await_line(watching.stdout, '"added": 1')
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert watching.returncode == 130


def _await_line(stream: Any, wanted: str) -> None:
    for line in stream:
        if wanted in line:
            return
    raise AssertionError(f"it ended without saying {wanted!r}")


def test_sync_that_is_killed_converges_when_run_again(folder: Path) -> None:
    for number in range(120):
        (folder / f"n{number}.md").write_text(f"# {number}\n\n" + f"Fact {number}. " * 60)
    for delay in (1.2, 1.6, 2.0):
        process = subprocess.Popen(
            [*COMMAND, "sync", "handbook"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.kill()
        process.wait()
    for number in range(30):  # gone before anybody noted that they had come
        os.unlink(folder / f"n{number}.md")
    run("handbook", "--allow-deletes")
    with opened() as parts:
        into = parts.collections.get("default")
        held = {each.filename for each in parts.documents.list(into, limit=500).items}
    assert held == {path.name for path in folder.iterdir()}
    assert list(Path(".ragstone/syncing").iterdir()) == []
    assert run_json("handbook")["chunks"] == 0


@pytest.mark.parametrize("every", ["", "m", "7m", "0h", "5h", "2d", "1w", "-5m", "1.5h"])
def test_interval_that_the_clock_cannot_keep_is_refused(every: str) -> None:
    with pytest.raises(InvalidRequest):
        cron_of(every)


def test_intervals_become_expressions() -> None:
    told = [cron_of(each) for each in ("1m", "30m", "60m", "1h", "12h", "24h")]
    assert told == [
        "* * * * *",
        "*/30 * * * *",
        "0 * * * *",
        "0 * * * *",
        "0 */12 * * *",
        "0 0 * * *",
    ]
