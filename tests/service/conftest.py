"""Fixtures of the HTTP tests: the whole application in process, and documents in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.settings import Settings, load_settings
from migrated import put_schema
from service.app import create_app
from service.wiring import Components

LOOPBACK = "http://127.0.0.1"


@pytest.fixture
def fast_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with the fakes, on SQLite; keyword arguments replace sections."""

    def build(**sections: Any) -> Settings:
        if not (data := tmp_path / "data" / "ragstone.db").exists():
            put_schema(data)
        return load_settings(
            **{
                "data_folder": tmp_path / "data",
                "retrieval": {
                    "embedder": "hashing",
                    "chunk_tokens": 60,
                    "chunk_overlap_tokens": 10,
                },
                "generation": {"engine": "echo"},
                **sections,
            }
        )

    return build


@pytest.fixture
def open_client() -> Iterator[Callable[[Settings], TestClient]]:
    """Start the application on some settings; it is stopped at the end of the test."""
    with ExitStack() as stack:

        def open_(settings: Settings) -> TestClient:
            app = create_app(Components(settings))
            client = TestClient(app, base_url=LOOPBACK, raise_server_exceptions=False)
            return stack.enter_context(client)

        yield open_


@pytest.fixture
def client(fast_settings: Any, open_client: Any) -> TestClient:
    """The application with the fakes, no key asked for."""
    started: TestClient = open_client(fast_settings())
    return started


@pytest.fixture
def add_text() -> Callable[..., str]:
    """Upload a text, attach it and wait until it is read; returns the file id."""

    def add(client: TestClient, store: str, name: str, text: str, **attributes: Any) -> str:
        upload = client.post(
            "/v1/files", files={"file": (name, text.encode())}, data={"purpose": "assistants"}
        )
        assert upload.status_code == 200, upload.text
        file_id: str = upload.json()["id"]
        attached = client.post(
            f"/v1/vector_stores/{store}/files", json={"file_id": file_id, "attributes": attributes}
        )
        assert attached.status_code == 200, attached.text
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = client.get(f"/v1/vector_stores/{store}/files/{file_id}").json()
            if state["status"] != "in_progress":
                assert state["status"] == "completed", state
                return file_id
            time.sleep(0.02)
        raise AssertionError(f"{file_id} was not read within a minute")

    return add


@pytest.fixture
def handbook(client: TestClient, add_text: Any) -> str:
    """A collection of that name with two documents."""
    client.post("/v1/vector_stores", json={"name": "handbook"})
    leave = "Employees have 27 days of leave each year. Leave is asked for in the portal."
    add_text(client, "handbook", "leave.txt", leave, year=2024, topic="leave")
    travel = "Trains are booked in second class. Flights need the approval of the manager."
    add_text(client, "handbook", "travel.txt", travel, year=2021, topic="travel")
    return "handbook"
