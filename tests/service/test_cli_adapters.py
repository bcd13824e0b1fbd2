"""`ragstone adapters`, as a person uses it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.entry import app
from tiny_llm import write_adapter, write_llm

pytestmark = pytest.mark.usefixtures("migrated_here")


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


@pytest.mark.usefixtures("folder")
def test_status_says_which_version_a_replica_serves_and_what_is_in_the_way(
    tmp_path: Path, replica: Replica
) -> None:
    run("artifacts", "tag", "adapter/support@v1", "production")
    base = str(tmp_path / "base")
    _lead_to(tmp_path, f'urls = ["{replica.url}"]')

    def state() -> str:
        [row] = json.loads(run("adapters", "status", "--json").stdout)
        assert row["replica"] == replica.url
        assert row["version"].startswith("support@")
        return str(row["state"])

    replica.serves(base)
    assert state() == "not loaded"
    replica.serves(base, "support@0123456789abcdef")
    assert state() == "not loaded, but support@0123456789abcdef"
    name = json.loads(run("adapters", "status", "--json").stdout)[0]["version"]
    replica.serves(base, name)
    assert state() == "loaded"
    replica.serves("some/other-model")
    assert "was made for the model" in state()


@pytest.mark.usefixtures("folder")
def test_status_of_a_model_inside_the_service_loads_no_model(tmp_path: Path) -> None:
    run("artifacts", "tag", "adapter/support@v1", "production")
    _lead_to(tmp_path, 'plugin = "transformers_local"\noptions = { model = "/no/such/model" }')
    [row] = json.loads(run("adapters", "status", "--json").stdout)
    assert row["state"] == "in the service's own process, whose log tells"
    assert row["version"].startswith("support@")


def _lead_to(folder: Path, upstream: str) -> None:
    """Have the one route lead elsewhere."""
    file = folder / "ragstone.toml"
    file.write_text(file.read_text().replace('engine = "tiny"', upstream))


class Replica:
    """A server that lists models."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"

    def serves(self, base: str, *adapters: str) -> None:
        cards = [{"id": "tiny", "root": base, "parent": None}]
        cards += [{"id": name, "root": None, "parent": "tiny"} for name in adapters]
        Listing.body = json.dumps({"data": cards}).encode()


class Listing(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(type(self).body)))
        self.end_headers()
        self.wfile.write(type(self).body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[Replica]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Replica(running)
        running.shutdown()


@pytest.mark.usefixtures("folder")
def test_status_fetches_nothing(tmp_path: Path, replica: Replica) -> None:
    run("artifacts", "tag", "adapter/support@v1", "production")
    _lead_to(tmp_path, f'urls = ["{replica.url}"]')
    replica.serves(str(tmp_path / "base"))
    [row] = json.loads(run("adapters", "status", "--json").stdout)
    assert row["state"] == "not loaded"
    assert not (tmp_path / ".ragstone" / "adapters").exists()
