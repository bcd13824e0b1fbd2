"""`ragstone train sweep`: real runs, pruned and compared, and the best of them trained again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.errors import InvalidRequest
from service.cli import train_sweep
from service.cli.entry import app
from service.work import launching
from trained import only_third_parties_warn, write_task

pytest.importorskip("trl")
pytest.importorskip("optuna")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("migrated_here")]
ROOT = Path(__file__).parent.parent.parent
PROGRAM = ROOT / "tests" / "sweep_program.py"


def ragstone(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "tuning"
    folder.mkdir()
    return folder


def write_sweep(place: Path, rates: list[float]) -> Path:
    sweep = {
        "sampler": "grid",
        "pruner": "none",
        "parallel": 2,
        "parameters": {"schedule.learning_rate": rates},
    }
    changes = {
        "data.eval": {"rows": "eval.jsonl"}, "register": {"name": "zs"},
        "schedule.steps": 12, "schedule.eval_every_steps": 4, "sweep": sweep,
    }  # fmt: skip
    return write_task(place, changes)


def test_a_sweep_tells_of_its_trials_and_prints_the_best_lock(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program whose runs take no time."""
    monkeypatch.setattr(launching, "RAGSTONE", (sys.executable, str(PROGRAM)))
    spec = write_sweep(place, [1e-4, 0.001, 0.95])
    assert "ragstone train sweep" in ragstone("plan", str(spec), code=1).stderr
    nowhere = ragstone("sweep", str(spec), "--report", str(place / "none" / "page.html"), code=1)
    assert "page.html' can be written; give" in nowhere.stderr
    assert "trial" not in nowhere.stderr
    said = ragstone("sweep", str(spec), "--report", str(place / "sweep.html"), "--json")
    found = json.loads(said.stdout)
    assert found["best"]["values"] == {"schedule.learning_rate": 0.001}
    assert found["best"]["value"] == pytest.approx(0.017)
    assert found["report"] == str(place / "sweep.html")
    assert "(best), schedule.learning_rate 0.001" in said.stderr
    assert "failed: the loss is nan (schedule.learning_rate 0.95)" in said.stderr
    page = (place / "sweep.html").read_text()
    assert "eval_loss by schedule.learning_rate" in page
    assert f"ragstone train rerun {found['path']}" in page
    own = Path(found["path"]).with_name("report.html")
    again = ragstone("sweep", str(spec))
    lines = again.stdout.splitlines()
    assert f"lock {found['digest']}" in lines
    assert lines[-1] == f"ragstone train rerun {found['path']}"
    assert again.stderr.splitlines()[-1] == f"report: {own}"
    own.unlink()
    own.mkdir()
    unwritten = ragstone("sweep", str(spec))
    assert "report.html' cannot be written" in unwritten.stderr
    assert "report: " not in unwritten.stderr
    assert json.loads(ragstone("sweep", str(spec), "--json").stdout)["report"] is None


def test_a_report_that_there_is_has_to_be_writable_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.touch()
    monkeypatch.setattr(os, "access", lambda path, _: path == page)
    train_sweep._check_writable(page)
    monkeypatch.setattr(os, "access", lambda path, _: path != page)
    with pytest.raises(InvalidRequest, match="page.html"):
        train_sweep._check_writable(page)


@pytest.mark.slow
def test_the_rate_that_learns_is_found_and_registered(place: Path) -> None:
    found = json.loads(ragstone("sweep", str(write_sweep(place, [1e-7, 0.02])), "--json").stdout)
    assert found["best"]["values"] == {"schedule.learning_rate": 0.02}
    (worse,) = (each for each in found["trials"] if each["number"] != found["best"]["number"])
    assert found["best"]["value"] < 0.5 * worse["value"]
    assert sorted(worse["seen"]) == ["100", "33", "67"]
    made = json.loads(ragstone("rerun", found["path"], "--no-smoke", "--json").stdout)
    assert made["adapter"] == "adapter/zs@v1"
    assert made["eval_loss_after"] == pytest.approx(found["best"]["value"], abs=1e-5)
