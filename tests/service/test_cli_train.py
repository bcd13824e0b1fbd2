"""`ragstone train plan` and `schema` in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from infra.expectations import yaml_text
from service.cli.entry import app
from tuning import chat, sums, write_base, write_rows, write_spec

pytestmark = pytest.mark.usefixtures("migrated_here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    place = tmp_path / "tuning"
    place.mkdir()
    write_base(place / "base")
    write_rows(place / "train.jsonl", sums(20))
    return place


def train(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_a_plan_says_what_a_run_comes_to_and_writes_its_lock(folder: Path) -> None:
    path = write_spec(folder / "spec.yaml")
    said = train("plan", str(path), "--lock", str(folder / "lock.json"))
    assert said.stdout.splitlines()[-1] == f"ragstone train run {path}"
    assert "20 of 20" in said.stdout
    lock = json.loads((folder / "lock.json").read_text())
    assert lock["batches"]["steps"] == 5
    assert set(lock["digests"]) == {"base.model", "base.template", "data.train"}
    again = json.loads(train("plan", str(path), "--json").stdout)
    assert again["lock"] == lock
    assert again["problems"] == []
    write_rows(folder / "train.jsonl", sums(21))
    assert json.loads(train("plan", str(path), "--json").stdout)["digest"] != again["digest"]


def test_what_is_wrong_is_told_line_by_line_and_nothing_is_written(folder: Path) -> None:
    write_rows(folder / "train.jsonl", [*sums(20), chat("Why?", ""), "{"])
    changes = {"schedule.packing": True, "schedule.rows_per_device": 2, "base.model": "basis"}
    path = write_spec(folder / "spec.yaml", changes)
    said = train("plan", str(path), "--lock", str(folder / "lock.json"), code=1)
    lines = [line for line in said.stderr.splitlines() if line.startswith("  ")]
    assert [line.strip().partition(":")[0] for line in lines] == [
        "base.model", "schedule.rows_per_device", "data.train row 21", "data.train row 22",
    ]  # fmt: skip
    assert not (folder / "lock.json").exists()
    told = json.loads(train("plan", str(path), "--json", code=1).stdout)
    assert len(told["problems"]) == len(lines)


def test_wrong_keys_are_told_with_all_else_that_is_wrong_a_line_each(folder: Path) -> None:
    write_rows(folder / "train.jsonl", [*sums(20), chat("Why?", ""), "{"])
    changes = {
        "base.model": "basis", "schedule.lr": 1e-4, "method.adapter.r": 0,
        "data.eval": {"rows": ""}, "runtime.device": "tpu", "parallelism": {"devices_per_node": 8},
    }  # fmt: skip
    path = write_spec(folder / "spec.yaml", changes)
    said = train("plan", str(path), "--lock", str(folder / "lock.json"), code=1).stderr
    assert "'sums' is refused, 7 problems:" in said
    lines = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert [line.partition(": ")[0] for line in lines] == [
        "data.eval.rows", "method.adapter.r", "schedule.lr", "runtime.device",
        "base.model", "data.train row 21", "data.train row 22",
    ]  # fmt: skip
    assert lines[2] == "schedule.lr: there is no such key"
    assert not (folder / "lock.json").exists()
    told = json.loads(train("plan", str(path), "--json", code=1).stdout)
    assert [f"{each['where']}: {each['what']}" for each in told["problems"]] == lines
    assert told["lock"] is None

    changes = {"name": "s u m", "schedule.epochs": None, "schedule.epoch": 1}
    said = train("plan", str(write_spec(folder / "spec.yaml", changes)), code=1).stderr
    assert "'spec.yaml' is refused, 4 problems:" in said
    lines = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    assert [line.partition(": ")[0] for line in lines] == [
        "name", "schedule.epoch", "data.train row 21", "data.train row 22",
    ]  # fmt: skip

    path = write_spec(
        folder / "spec.yaml", {"schedule.epochs": None, "data": None, "colour": "red"}
    )
    said = train("plan", str(path), code=1).stderr
    assert "  data: missing\n" in said
    assert "  colour: there is no such key\n" in said


def test_several_devices_are_launched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "parallelism": {"devices_per_node": 2},
        "runtime": {"device": "cpu", "environment": {"A": "b c"}},
    }
    path = str(write_spec(folder / "spec.yaml", changes))
    command = train("plan", path).stdout.splitlines()[-1]
    assert command.startswith("ragstone launch --on local --name sums --nodes 1 --processes 2 ")
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(folder / "elsewhere"))
    command = train("plan", path).stdout.splitlines()[-1]
    assert "--env 'A=b c' " in command
    assert "--secret RAGSTONE_DATA_FOLDER -- ragstone train run " in command


def test_a_rank_over_that_of_the_engine_is_refused(folder: Path) -> None:
    Path("ragstone.toml").write_text(
        '[engines.chat]\nmodel = "m"\nlora = true\nmax_lora_rank = 2\n'
    )
    changes = {"register": {"name": "sums"}, "serve": {"upstream": "chat", "max_rank": 64}}
    said = train("plan", str(write_spec(folder / "spec.yaml", changes)), code=1)
    assert "method.adapter.r: rank 4 is over the 2 that the server takes" in said.stderr
    said = train("run", str(folder / "spec.yaml"), code=1)
    assert "method.adapter.r: rank 4 is over the 2 that the server takes" in said.stderr
    changes["serve"] = {"upstream": "cat"}
    changes["base.model"] = "basis"
    said = train("plan", str(write_spec(folder / "spec.yaml", changes)), code=1)
    assert "  serve.upstream: No engine 'cat'; did you mean 'chat'?\n" in said.stderr
    assert "  base.model: " in said.stderr


def test_a_machine_without_engines_says_that_it_did_not_look_at_the_one_that_serves(
    folder: Path,
) -> None:
    changes = {"register": {"name": "sums"}, "serve": {"upstream": "chat"}}
    said = train("plan", str(write_spec(folder / "spec.yaml", changes)))
    assert "not checked: the settings here say nothing of the engine 'chat'" in said.stderr


def test_a_specification_of_a_later_release_is_refused(folder: Path) -> None:
    path = write_spec(folder / "spec.yaml", {"version": 2})
    assert "version: 2 is of a later release" in train("plan", str(path), code=1).stderr


def test_the_schema_takes_what_is_planned(folder: Path) -> None:
    schema = json.loads(train("schema").stdout)
    values = yaml_text.parse(write_spec(folder / "spec.yaml").read_text())
    jsonschema.Draft202012Validator(schema).validate(values)
