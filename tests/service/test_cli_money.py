"""The terminal: keys with limits, budgets, usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.settings import load_settings
from service.cli.entry import app
from service.gateway.counts import Count
from service.gateway.usage import record_usage
from service.wiring import Components

pytestmark = pytest.mark.usefixtures("migrated_here")


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def test_a_key_is_made_shown_changed_and_rotated() -> None:
    made = run_json(
        *("keys", "create", "ci", "--scope", "models", "--tenant", "acme", "--group", "group:a"),
        *("--model", "small-*", "--collection", "public", "--requests-per-minute", "60"),
        *("--tokens-per-minute", "1000", "--max-concurrent", "4", "--budget", "12.50"),
        *("--budget-period", "month"),
    )
    shown = run_json("keys", "show", "ci")
    assert {**shown, "key": made["key"]} == made
    assert (shown["tenant"], shown["scopes"], shown["models"]) == ("acme", ["models"], ["small-*"])
    (budget,) = run_json("budgets", "list")
    assert (budget["for"], budget["amount"], budget["period"]) == ("key ci", "12.50", "month")
    changed = run_json("keys", "set", "ci", "--requests-per-minute", "0", "--max-concurrent", "9")
    assert (changed["requests_per_minute"], changed["max_concurrent"]) == (None, 9)
    assert changed["tokens_per_minute"] == 1000
    assert run_json("keys", "rotate", "ci")["key"] != made["key"]
    assert "small-*" in run("keys", "show", "ci").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "create", "x", "--scope", "root"],
        ["keys", "create", "x", "--budget", "-1"],
        ["keys", "create", "x", "--requests-per-minute", "1000000000000000"],
        ["keys", "create", "x", "--expires-in-days", "1e9"],
        ["keys", "show", "none"],
        ["budgets", "set", "ten"],
        ["budgets", "set", "1", "--key", "none"],
    ],
)
def test_absurd_wishes_are_refused_in_one_line(words: list[str]) -> None:
    result = run(*words, code=1)
    assert result.stderr.startswith("ragstone: ")
    assert run_json("keys", "list") == []


def test_a_budget_is_set_changed_shown_and_removed() -> None:
    first = run_json("budgets", "set", "5", "--tenant", "acme", "--period", "day")
    second = run_json("budgets", "set", "6.5", "--tenant", "acme", "--period", "day")
    assert first["id"] == second["id"]
    assert run_json("budgets", "show", first["id"])["remaining"] == "6.50"
    assert "tenant acme" in run("budgets", "list").stdout
    run("budgets", "remove", first["id"], "--yes")
    assert run_json("budgets", "list") == []


def test_usage_is_reported_as_table_json_and_csv() -> None:
    key = run_json("keys", "create", "=cmd")
    parts = Components(load_settings())
    with parts.database.write() as connection:
        for day in ("2026-11-28", "2026-11-29"):
            used = Count(2, 0, 10, 20, 1_500_000_000)
            record_usage(connection, {(day, key["id"], "small", "acme"): used})
    parts.close()
    both = run_json("usage", "--by", "key")
    assert both["data"][0]["cost"] == "3.00"
    assert both["data"][0]["key"] == "=cmd"
    one = run_json("usage", "--by", "model,day", "--since", "2026-11-29")
    assert [(row["day"], row["requests"]) for row in one["data"]] == [("2026-11-29", 2)]
    lines = run("usage", "--csv", "--by", "key").stdout.splitlines()
    assert lines == [
        "key,requests,interrupted,prompt_tokens,completion_tokens,cost",
        "'=cmd,4,0,20,40,3.00",
    ]
    assert "small" in run("usage").stdout
    run("usage", "--by", "price", code=2)
    run("usage", "--since", "yesterday", code=2)
