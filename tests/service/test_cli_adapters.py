"""`ragstone adapters`, as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.entry import app
from tiny_llm import write_adapter, write_llm


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with settings of an engine that does not run, and an adapter in the store."""
    base = write_llm(tmp_path / "base")
    (tmp_path / "ragstone.toml").write_text(
        f'[engines.tiny]\nmodel = "{base}"\nlora = true\nmax_lora_rank = 8\n'
        f'[engines.other]\nmodel = "other/model"\nlora = true\n'
        '[gateway.upstreams.tiny]\nengine = "tiny"\n'
        "[gateway.routes.support]\n"
        'targets = [{ upstream = "tiny", adapter = "adapter/support@production" }]\n'
    )
    write_adapter(tmp_path / "trained", base, "A")
    run("artifacts", "put", str(tmp_path / "trained"), "adapter/support")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_adapters_are_listed_with_their_aliases() -> None:
    run("artifacts", "tag", "adapter/support@v1", "production")
    [row] = json.loads(run("adapters", "list", "--json").stdout)
    assert (row["adapter"], row["version"], row["aliases"]) == (
        "adapter/support",
        1,
        ["production"],
    )
    assert "production" in run("adapters", "list").stdout


@pytest.mark.usefixtures("folder")
def test_adapter_is_checked_against_an_engine_without_loading_it() -> None:
    answer = json.loads(run("adapters", "check", "adapter/support", "tiny", "--json").stdout)
    assert answer["rank"] == 4
    assert answer["adapter"].startswith("support@")
    assert "other/model" in run("adapters", "check", "adapter/support", "other", code=1).stderr
    assert "No engine" in run("adapters", "check", "adapter/support", "gone", code=1).stderr


@pytest.mark.usefixtures("folder")
def test_status_says_what_is_missing() -> None:
    [row] = json.loads(run("adapters", "status", "--json").stdout)
    assert "adapter/support@production" in row["state"]
    run("artifacts", "tag", "adapter/support@v1", "production")
    [row] = json.loads(run("adapters", "status", "--json").stdout)
    assert row["state"] == "no replica runs"
