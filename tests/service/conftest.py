"""Fixtures of the HTTP tests: the whole application in process, and documents in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.settings import Settings, load_settings
from migrated import put_schema
from service.app import create_app
from service.wiring import Components
from surroundings import no_settings_from_outside

LOOPBACK = "http://127.0.0.1"


@pytest.fixture
def migrated_here(tmp_path: Path) -> None:
    """The working folder has a database, where commands look for it."""
    if not (path := tmp_path / ".ragstone" / "ragstone.db").exists():
        put_schema(path)


@pytest.fixture
def fast_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings with the fakes, on SQLite; keyword arguments replace sections."""
    return partial(_fast, tmp_path / "data")


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
    return _add


@pytest.fixture
def handbook(client: TestClient) -> str:
    """A collection of that name with two documents."""
    return _add_handbook(client)


@pytest.fixture(scope="module")
def parts_in() -> Callable[..., Components]:
    """Open the parts of a process in a folder, with the fakes and nothing set from outside.

    Keyword arguments replace sections. The application closes them.
    """
    return _parts_in


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application with the handbook in it, for those tests of a file that change nothing."""
    app = create_app(_parts_in(tmp_path_factory.mktemp("reading")))
    with TestClient(app, base_url=LOOPBACK, raise_server_exceptions=False) as client:
        _add_handbook(client)
        yield client


def _parts_in(folder: Path, **sections: Any) -> Components:
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, folder)
        return Components(_fast(folder / "data", **sections))


def _fast(data: Path, **sections: Any) -> Settings:
    if not (data / "ragstone.db").exists():
        put_schema(data / "ragstone.db")
    retrieval = {"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10}
    given = {"data_folder": data, "retrieval": retrieval, "generation": {"engine": "echo"}}
    return load_settings(**{**given, **sections})


def _add_handbook(client: TestClient) -> str:
    client.post("/v1/vector_stores", json={"name": "handbook"})
    leave = "Employees have 27 days of leave each year. Leave is asked for in the portal."
    _add(client, "handbook", "leave.txt", leave, year=2024, topic="leave")
    travel = "Trains are booked in second class. Flights need the approval of the manager."
    _add(client, "handbook", "travel.txt", travel, year=2021, topic="travel")
    return "handbook"


def _add(client: TestClient, store: str, name: str, text: str, **attributes: Any) -> str:
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
