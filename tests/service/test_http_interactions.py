"""The record of questions and answers over HTTP and in the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from infra.contracts import Interaction, Usage
from service.cli.entry import app

NOW = datetime.now(UTC)
URL = "/v1/interactions"


@pytest.fixture
def recorded(client: TestClient) -> TestClient:
    """Three interactions, an hour apart, the newest last."""
    log = client.app.state.components.interactions  # type: ignore[attr-defined]
    for number in range(3):
        log.add(
            Interaction(
                id=f"req_{number}",
                kind="completion",
                at=NOW - timedelta(hours=2 - number),
                model="small",
                outcome="answered" if number else "failed",
                status=200 if number else 502,
                tag="live",
                usage=Usage(10, number),
                cost_nano=1_500_000,
            )
        )
    log.flush()
    return client


def test_pages_are_listed_newest_first(recorded: TestClient) -> None:
    page = recorded.get(URL, params={"limit": 2}).json()
    assert [item["id"] for item in page["data"]] == ["req_2", "req_1"]
    assert page["has_more"] is True
    rest = recorded.get(URL, params={"after": "req_1"}).json()
    assert [item["id"] for item in rest["data"]] == ["req_0"]
    assert page["data"][0]["cost"] == 0.0015


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"outcome": "failed"}, ["req_0"]),
        ({"model": "large"}, []),
        ({"since": (NOW - timedelta(hours=1.5)).isoformat()}, ["req_2", "req_1"]),
        ({"until": (NOW - timedelta(hours=1.5)).isoformat(), "tag": "live"}, ["req_0"]),
    ],
)
def test_a_query_narrows(recorded: TestClient, query: dict[str, Any], found: list[str]) -> None:
    page = recorded.get(URL, params=query).json()
    assert [item["id"] for item in page["data"]] == found


def test_one_is_read_and_some_are_deleted(recorded: TestClient) -> None:
    assert recorded.get(f"{URL}/req_1").json()["usage"]["total_tokens"] == 11
    assert recorded.delete(URL, params={"outcome": "failed"}).json() == {"deleted": 1}
    assert recorded.get(f"{URL}/req_0").status_code == 404


@pytest.mark.parametrize(
    ("query", "parameter"),
    [({"since": "2026-11-29T12:00:00"}, "since"), ({"kind": "x"}, "kind"), ({"limit": 0}, "limit")],
)
def test_a_wrong_query_is_refused(
    recorded: TestClient, query: dict[str, Any], parameter: str
) -> None:
    answer = recorded.get(URL, params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == parameter


def test_the_terminal_lists_exports_and_deletes(
    recorded: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recorded.app.state.components.settings  # type: ignore[attr-defined]
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(settings.data_folder))
    terminal = CliRunner()
    listed = terminal.invoke(app, ["interactions", "list"])
    assert listed.exit_code == 0, listed.output
    assert "req_2" in listed.output
    lines = terminal.invoke(app, ["interactions", "export"]).output.splitlines()
    assert len(lines) == 3
    shown = terminal.invoke(app, ["interactions", "show", "req_2", "--json"])
    assert '"status": 200' in shown.output
    gone = terminal.invoke(app, ["interactions", "delete", "--before-days", "0", "--yes"])
    assert "Deleted 3" in gone.output
