"""The terminal: help, errors in one line, exit codes, keys, collections, init, doctor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from infra.settings import Settings, load_settings
from service.cli.entry import app, main
from service.cli.output import place, printable
from service.cli.settings_text import every_setting, to_toml, write_toml

VERBS = (
    *("demo", "init", "ingest", "search", "ask", "serve", "worker", "collections"),
    *("engine", "artifacts", "jobs", "keys", "doctor"),
)


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER", "hashing")


def run(*words: str, code: int = 0, typed: str | None = None) -> Any:
    result = CliRunner().invoke(app, list(words), input=typed)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*words: str, code: int = 0) -> Any:
    return json.loads(run(*words, "--json", code=code).stdout)


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "ragstone"
    return subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_help_names_every_verb() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        "from service.cli import main; sys.argv = ['ragstone', '--help']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    assert not loaded & {"rich", "sqlalchemy", "numpy", "pydantic", "fastapi", "faiss", "torch"}


def test_version_is_the_package_version() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"ragstone {version('ragstone')}\n"


def test_unknown_verb_is_a_usage_error() -> None:
    done = command("ingset")
    assert done.returncode == 2
    assert "ingset" in done.stderr


def test_error_is_one_line_without_a_traceback() -> None:
    done = command("collections", "show", "nothing")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "ragstone: No collection 'nothing'\n"


def test_wrong_setting_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_SERVER__PROT", "1")
    result = run("keys", "list", code=1)
    assert result.stderr.count("\n") == 1
    assert "RAGSTONE_SERVER__PROT" in result.stderr
    assert "RAGSTONE_SERVER__PORT" in result.stderr


def test_unwritable_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(tmp_path / "file"))
    result = run("collections", "list", code=1)
    assert result.stderr.count("\n") == 1
    assert str(tmp_path / "file") in result.stderr


def test_missing_collection_suggests_near_names() -> None:
    run("collections", "create", "handbook")
    for words in (["search", "x"], ["ask", "x"], ["collections", "documents", "list"]):
        result = run(*words, "-c", "handbok", code=1)
        assert "did you mean 'handbook'" in result.stderr


def test_key_is_shown_once_and_works_until_revoked() -> None:
    from service.wiring import Components

    made = run_json("keys", "create", "laptop", "--expires-in-days", "1")
    assert made["key"].startswith("rgs_")
    parts = Components(load_settings())
    parts.keyring.refresh()
    caller = parts.keyring.find(made["key"])
    assert caller is not None
    assert caller.name == "laptop"
    listed = run("keys", "list")
    assert made["key"] not in listed.stdout
    assert "laptop" in listed.stdout
    assert run_json("keys", "revoke", "laptop", "--yes")["state"] == "revoked"
    assert [row["state"] for row in run_json("keys", "list")] == ["revoked"]
    parts.close()


def test_plain_key_is_all_that_goes_to_standard_output() -> None:
    result = run("keys", "create", "pipe")
    assert result.stdout.startswith("rgs_")
    assert result.stdout.count("\n") == 1
    assert "not shown again" in result.stderr


def test_name_of_a_key_can_be_used_once() -> None:
    run("keys", "create", "same")
    assert "exists already" in run("keys", "create", "same", code=1).stderr


def test_nothing_is_revoked_or_deleted_without_a_yes() -> None:
    run("keys", "create", "kept")
    run("collections", "create", "kept")
    run("keys", "revoke", "kept", code=1, typed="n\n")
    run("keys", "revoke", "kept", code=1, typed="")
    run("collections", "delete", "kept", code=1, typed="n\n")
    assert run_json("keys", "list")[0]["state"] == "valid"
    assert run_json("collections", "list")[0]["name"] == "kept"
    run("collections", "delete", "kept", typed="y\n")
    assert run_json("collections", "list") == []


def test_collection_is_created_shown_renamed_and_deleted() -> None:
    made = run_json("collections", "create", "one", "--chunk-tokens", "64", "--overlap-tokens", "8")
    assert made["recipe"]["chunk_tokens"] == 64
    assert run_json("collections", "rename", "one", "two")["id"] == made["id"]
    shown = run_json("collections", "show", "two")
    assert shown["documents"] == 0
    assert shown["recipe"] == made["recipe"]
    assert "chunk_tokens" in run("collections", "show", "two").stdout
    assert run_json("collections", "delete", "two", "--yes")["deleted"] is True
    run("collections", "show", "two", code=1)


def test_every_collection_is_listed_past_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.cli import collections

    monkeypatch.setattr(collections, "PAGE", 2)
    names = [f"c{number}" for number in range(5)]
    for name in names:
        run("collections", "create", name)
    assert [row["name"] for row in run_json("collections", "list")] == names


def test_init_writes_settings_that_load() -> None:
    result = run_json("init", "--port", "9001")
    assert result["key"] is None
    text = Path("ragstone.toml").read_text(encoding="utf-8")
    written = tomllib.loads(text)
    assert written.pop("server") == {"host": "127.0.0.1", "port": 9001}
    assert {"retrieval", "loading", "generation", "jobs", "logging"} <= set(written)
    assert written.pop("gateway") == {"key_limits": {}}
    assert not any(written.values()), "all else is commented out"
    assert load_settings().server.port == 9001
    assert Path("ragstone.toml").stat().st_mode & 0o077 == 0


def test_init_replaces_a_file_only_when_forced() -> None:
    Path("ragstone.toml").write_text("# mine\n", encoding="utf-8")
    assert "exists" in run("init", code=1).stderr
    assert Path("ragstone.toml").read_text(encoding="utf-8") == "# mine\n"
    run("init", "--force")
    assert "[server]" in Path("ragstone.toml").read_text(encoding="utf-8")


def test_init_for_a_network_makes_one_first_key() -> None:
    first = run_json("init", "--host", "0.0.0.0")
    assert first["key"].startswith("rgs_")
    assert run_json("init", "--host", "0.0.0.0", "--force")["key"] is None
    assert [row["name"] for row in run_json("keys", "list")] == ["first"]


def test_written_settings_mention_every_key_and_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAGSTONE_RETRIEVAL__EMBEDDER")
    defaults = {setting.key: setting.default for setting in every_setting()}
    chosen = {key: value for key, value in defaults.items() if value is not None}
    text = write_toml(chosen)
    assert set(defaults) == set(keys_of(Settings, ""))
    assert "gateway.key_limits.tokens_per_minute" in defaults
    assert "\n[gateway.key_limits]\n# In each process that serves.\n# requests_per_minute" in text
    assert Settings(**tomllib.loads(text)).model_dump() == Settings().model_dump()
    assert len(chosen) > 20


def keys_of(model: type[BaseModel], section: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from keys_of(info.annotation, f"{section}{name}.")
        else:
            yield f"{section}{name}"


@pytest.mark.parametrize(
    "value", [True, 12, 1_500_000, 2.5, 'a "quoted"\nline', ["x", "y"], {"model": "m", "n": 3}, {}]
)
def test_values_survive_being_written_as_toml(value: Any) -> None:
    assert tomllib.loads(f"value = {to_toml(value)}") == {"value": value}


def test_doctor_finds_nothing_wrong_in_a_fresh_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_SERVER__PORT", "0")
    report = run_json("doctor")
    assert report["healthy"] is True
    statuses = {finding["name"]: finding["status"] for finding in report["findings"]}
    assert {"settings", "data folder", "database", "embedder", "engine", "port"} <= set(statuses)
    assert set(statuses.values()) == {"ok"}


def test_doctor_says_what_to_mend() -> None:
    Path("ragstone.toml").write_text("[server]\nprot = 1\n", encoding="utf-8")
    result = run("doctor", code=1)
    assert "fail" in result.stdout
    assert "server.prot" in result.stdout


def test_doctor_says_why_a_reranker_cannot_rank() -> None:
    options = "{ weight = 2.0 }"
    text = f'[retrieval]\nreranker = "late_interaction"\nreranker_options = {options}\n'
    Path("ragstone.toml").write_text(text, encoding="utf-8")
    found = {item["name"]: item for item in run_json("doctor", code=1)["findings"]}
    assert found["reranker"]["status"] == "fail"
    assert "weight 2.0" in found["reranker"]["detail"]
    assert found["engine"]["status"] == "ok"


ROUTE = """
[gateway.upstreams.gpu]
urls = ["http://127.0.0.1:9"]

[gateway.routes.writer]
targets = [{{ upstream = "{upstream}" }}]

[generation]
model = "{model}"
"""


@pytest.mark.parametrize(
    ("upstream", "model", "said"),
    [("cpu", "writer", "upstream 'cpu', which is not there"), ("gpu", "writr", "'writr', which")],
)
def test_a_wrong_route_is_told_in_one_line(upstream: str, model: str, said: str) -> None:
    Path("ragstone.toml").write_text(ROUTE.format(upstream=upstream, model=model), "utf-8")
    done = command("serve", "--port", "0")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ragstone: ")
    assert said in line
    found = {item["name"]: item for item in run_json("doctor", code=1)["findings"]}
    assert found["routes"]["status"] == "fail"
    assert said in found["routes"]["detail"]


def test_doctor_fails_on_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / ".ragstone").mkdir()
    (tmp_path / ".ragstone" / "ragstone.db").write_bytes(b"this is no database" * 100)
    report = run_json("doctor", code=1)
    broken = [finding for finding in report["findings"] if finding["status"] == "fail"]
    assert "database" in {finding["name"] for finding in broken}
    assert all(finding["advice"] for finding in broken)


def test_doctor_warns_of_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("RAGSTONE_SERVER__PORT", str(taken.getsockname()[1]))
        report = run_json("doctor")
    found = next(finding for finding in report["findings"] if finding["name"] == "port")
    assert found["status"] == "warn"


def test_doctor_warns_of_a_network_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_SERVER__HOST", "0.0.0.0")
    monkeypatch.setenv("RAGSTONE_SERVER__PORT", "0")
    report = run_json("doctor")
    found = next(finding for finding in report["findings"] if finding["name"] == "keys")
    assert found["status"] == "warn"
    assert "keys create" in found["advice"]


def test_doctor_fails_on_a_collection_of_another_embedder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("collections", "create", "old")
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER_OPTIONS", '{"dimension": 32}')
    report = run_json("doctor", code=1)
    found = next(item for item in report["findings"] if item["name"] == "index 'old'")
    assert found["status"] == "fail"


def test_text_of_a_document_cannot_act_on_the_terminal() -> None:
    hostile = "a\x1b[2Jb\x07c\x9bd\u202ee\r\n\tf"
    assert printable(hostile) == "a\ufffd[2Jb\ufffdc\ufffdde\ufffd\n\tf"


def test_place_is_a_path_for_files_and_the_source_itself_otherwise() -> None:
    assert place(Path("/a b/ü.txt").as_uri()) == "/a b/ü.txt"
    assert place("upload:file-1/x.pdf") == "upload:file-1/x.pdf"


def test_reader_that_leaves_early_costs_no_traceback() -> None:
    program = Path(sys.executable).parent / "ragstone"
    done = subprocess.run(
        f"{program} init --json | true",
        shell=True,
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert "Traceback" not in done.stderr


def test_ctrl_c_before_the_verb_has_begun_costs_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert "ragstone: stopped" in capsys.readouterr().err
