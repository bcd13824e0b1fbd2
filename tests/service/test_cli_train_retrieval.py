"""`ragstone train embedder` and `reranker` in the terminal: plans, verdicts, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import planted_words
from infra.settings import load_settings
from planted_words import write_spec
from service.cli.entry import app
from service.wiring import Components
from tiny_model import write_model
from trained import only_third_parties_warn

pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("migrated_here")]
SETTINGS = '[retrieval]\nembedder = "hashing"\nchunk_tokens = 16\nchunk_overlap_tokens = 0\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Path("ragstone.toml").write_text(SETTINGS)
    parts = Components(load_settings())
    planted_words.fill(parts, planted_words.write_documents(tmp_path / "documents"))
    parts.close()
    planted_words.write_task(tmp_path)
    write_model(tmp_path / "base")
    return tmp_path


def train(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_a_plan_says_what_it_comes_to_and_a_wrong_one_what_is_wrong(folder: Path) -> None:
    path = str(write_spec(folder / "spec.yaml", {"base.model": "base"}))
    said = train("embedder", path, "--plan").stdout
    assert "held out" in said
    assert "sha256:" in said
    found = json.loads(train("embedder", path, "--plan", "--json").stdout)
    assert found["problems"] == []
    assert found["lock"]["counts"]["learned from"] == 90

    wrong = str(write_spec(folder / "wrong.yaml", {"base.model": "nowhere", "data.held_out": 0.05}))
    said = train("embedder", wrong, "--plan", code=3).stderr
    assert "'planted' is refused, 3 problems" in said
    lines = [line.strip().partition(":")[0] for line in said.splitlines() if line[:2] == "  "]
    assert lines == ["base.model", "evaluate.expected_gain", "evaluate.margin"]
    problems = json.loads(train("embedder", wrong, "--plan", "--json", code=3).stdout)["problems"]
    assert [each["where"] for each in problems] == lines
    assert "matryoshka: there is no such key" in train(
        "reranker", str(write_spec(folder / "other.yaml", {"matryoshka": [8]})), code=3
    ).stderr  # fmt: skip


def test_what_gains_nothing_is_told_by_its_exit_code_and_is_not_registered(folder: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("trl")
    planted_words.write_embedder(folder / "vectors")
    changes = {
        "base.model": "vectors", "serve": "sentence_transformers",
        "schedule": {"steps": 1, "batch": 2, "learning_rate": 1e-9},
    }  # fmt: skip
    path = str(write_spec(folder / "spec.yaml", changes))
    told = json.loads(train("embedder", path, "--json", code=2).stdout)
    assert told["verdict"] in {"inconclusive", "underpowered"}
    assert told["digest"] is None
    said = train("embedder", path, code=2)
    assert "nothing is registered" in said.stderr
    assert "ndcg@10" in said.stdout
    parts = Components(load_settings())
    assert parts.artifacts.names("model") == []
    parts.close()


def test_schemas_of_both_are_printed() -> None:
    for kind in ("embedder", "reranker"):
        printed = json.loads(train("schema", "--of", kind).stdout)
        assert "negatives" in printed["properties"]
