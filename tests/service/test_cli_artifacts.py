"""`ragstone artifacts`: every verb, through the real store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.entry import app

pytestmark = pytest.mark.usefixtures("migrated_here")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["artifacts", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


@pytest.fixture
def faq() -> Path:
    """A folder in two versions, of which the second lies in the folder."""
    folder = Path("faq")
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"question": "Where?"}\n')
    (folder / "old.txt").write_text("old")
    run("put", "faq", "dataset/faq", "--metadata", "rows=1", "--tag", "production")
    (folder / "train.jsonl").write_text('{"question": "Where?"}\n{"question": "When?"}\n')
    (folder / "old.txt").unlink()
    (folder / "new.txt").write_text("new")
    run("put", "faq", "dataset/faq", "--metadata", "rows=2")
    return folder


def test_what_is_put_is_listed_shown_and_checked_out(faq: Path) -> None:
    names = run_json("list")
    assert [row["reference"] for row in names] == ["dataset/faq@v2"]
    versions = run_json("list", "dataset/faq")
    assert [row["reference"] for row in versions] == ["dataset/faq@v2", "dataset/faq@v1"]
    assert versions[1]["aliases"] == ["production"]
    assert "dataset/faq@v2" in run("list", "dataset").stdout
    shown = run_json("show", "dataset/faq")
    assert (shown["kind"], shown["metadata"]) == ("dataset", {"rows": 2})
    assert [entry["path"] for entry in shown["files"]] == ["new.txt", "train.jsonl"]
    assert "train.jsonl" in run("show", "dataset/faq@production").stdout
    assert run_json("checkout", "dataset/faq@v1", "out")["reference"] == "dataset/faq@v1"
    assert sorted(path.name for path in Path("out").iterdir()) == ["old.txt", "train.jsonl"]
    refused = run("checkout", "dataset/faq", "out", code=1)
    assert "in the way" in refused.stderr


def test_unchanged_content_gets_no_new_number(faq: Path) -> None:
    again = run_json("put", "faq", "dataset/faq", "--metadata", "rows=2")
    assert again["reference"] == "dataset/faq@v2"


@pytest.mark.parametrize(
    ("reference", "near"), [("dataset/faw", "dataset/faq"), ("dataset/faq@prodction", "production")]
)
def test_unknown_references_suggest_the_nearest(faq: Path, reference: str, near: str) -> None:
    refused = run("show", reference, code=1)
    assert "did you mean" in refused.stderr
    assert near in refused.stderr


def test_aliases_move_by_comparison_and_go_back(faq: Path) -> None:
    refused = run("tag", "dataset/faq@v2", "production", "--expect", "none", code=1)
    assert "look again" in refused.stderr
    run("tag", "dataset/faq@v2", "production", "--expect", "dataset/faq@v1")
    assert run_json("show", "dataset/faq@production")["reference"] == "dataset/faq@v2"
    run("rollback", "dataset/faq", "production")
    assert run_json("show", "dataset/faq@production")["reference"] == "dataset/faq@v1"
    moves = run_json("history", "dataset/faq", "production")
    assert [move["action"] for move in moves] == ["rollback", "move", "move"]
    run("untag", "dataset/faq", "production")
    run("show", "dataset/faq@production", code=1)
    assert "remove" in run("history", "dataset/faq", "production").stdout


def test_difference_and_lineage(faq: Path) -> None:
    found = run_json("diff", "dataset/faq@v1", "dataset/faq@v2")
    assert (found["added"], found["removed"], found["changed"]) == (
        ["new.txt"],
        ["old.txt"],
        ["train.jsonl"],
    )
    assert "+ new.txt" in run("diff", "dataset/faq@v1", "dataset/faq@v2").stdout
    run("put", "faq", "report/check", "--from", "checked=dataset/faq@v1")
    assert "checked: dataset/faq@v1" in run("lineage", "report/check").stdout
    below = run_json("lineage", "dataset/faq@v1", "--down")
    assert [edge["role"] for edge in below["edges"]] == ["checked"]
    assert "report/check@v1" in run("lineage", "dataset/faq@v1", "--down").stdout


def test_a_flipped_bit_is_found_and_mended_from_a_mirror(faq: Path) -> None:
    moved = run_json("sync", "dataset/faq@v2", "mirror")
    assert moved["objects"] >= 2
    assert run_json("sync", "dataset/faq@v2", "mirror")["objects"] == 0
    assert run_json("verify")[0]["sound"]
    for pack in Path(".ragstone/artifacts/packs").rglob("*"):
        if pack.is_file():
            content = bytearray(pack.read_bytes())
            content[0] ^= 1
            pack.chmod(0o644)
            pack.write_bytes(content)
    broken = run("verify", "dataset/faq@v2", code=1)
    assert "wrong" in broken.stdout
    assert run_json("repair", "dataset/faq@v2", "mirror")[0]["sound"]
    assert "sound" in run("verify", "dataset/faq@v2").stdout
    assert "No artifact store" in run("repair", "dataset/faq@v2", "nowhere", code=1).stderr
    shutil.rmtree(".ragstone")
    assert run_json("sync", "dataset/faq", "mirror", "--fetch")["objects"] >= 2
    assert run_json("show", "dataset/faq")["metadata"] == {"rows": 2}


def test_a_bucket_needs_to_be_told_where_its_names_are(faq: Path) -> None:
    assert "--database" in run("sync", "dataset/faq", "memory://mirror", code=1).stderr


def test_a_pointer_in_git_brings_the_same_content_back(faq: Path) -> None:
    run("export", "dataset/faq@v1", "faq.json")
    written = Path("faq.json").read_bytes()
    run("export", "dataset/faq@v1", "faq.json")
    assert Path("faq.json").read_bytes() == written
    pointed = json.loads(written)
    assert (pointed["name"], pointed["version"], pointed["files"]) == ("dataset/faq", 1, 2)
    run("checkout", "faq.json", "out")
    assert (Path("out") / "old.txt").read_text() == "old"
    Path("faq.json").write_text('{"ragstone_artifact": 1, "name": "dataset/faq"}')
    assert "is not a pointer" in run("checkout", "faq.json", "other", code=1).stderr


def test_what_expired_is_collected(faq: Path) -> None:
    run("untag", "dataset/faq", "production")
    run("expire", "dataset/faq@v1")
    assert [row["reference"] for row in run_json("list", "dataset/faq")] == ["dataset/faq@v2"]
    counted = run_json("gc", "--grace-hours", "0", "--dry-run")
    assert counted["artifacts"] == 1
    assert "would go" in run("gc", "--grace-hours", "0", "--dry-run").stdout
    assert run_json("gc", "--grace-hours", "0")["artifacts"] == 1
    assert "sound" in run("verify").stdout


def test_an_empty_store_says_what_to_do() -> None:
    assert "artifacts put" in run("list").stderr
    assert "ROLE=REFERENCE" in run("put", ".", "dataset/x", "--from", "nonsense", code=2).stderr
