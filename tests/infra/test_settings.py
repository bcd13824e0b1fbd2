"""Settings are read in order, and a wrong key is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import InvalidConfiguration
from infra.settings import load_settings


def test_defaults_start_on_a_laptop() -> None:
    settings = load_settings()
    assert settings.server.host == "127.0.0.1"
    assert settings.retrieval.embedder == "onnx"
    assert settings.database_location.startswith("sqlite:///")


def test_environment_wins_over_the_file_and_an_argument_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ragstone.toml").write_text("[server]\nport = 1\n[retrieval]\npassages = 3\n")
    assert load_settings().server.port == 1
    monkeypatch.setenv("RAGSTONE_SERVER__PORT", "2")
    settings = load_settings()
    assert (settings.server.port, settings.retrieval.passages) == (2, 3)
    assert load_settings(server={"port": 3}).server.port == 3


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[server]\nprot = 1\n", "server.prot"),
        ("[srever]\n", "srever"),
        ("[server]\nport = 'x'\n", "server.port"),
        ("[server]\nport = 65536\n", "server.port"),
        ("[logging]\nlevel = 'loud'\n", "logging.level"),
        ("database_url = 'mysql://host/db'\n", "database_url"),
        ("database_url = 'nonsense'\n", "database_url"),
    ],
)
def test_wrong_key_or_value_is_named(toml: str, key: str) -> None:
    Path("ragstone.toml").write_text(toml)
    with pytest.raises(InvalidConfiguration, match=key):
        load_settings()


def test_every_wrong_key_is_named_at_once() -> None:
    Path("ragstone.toml").write_text("[server]\nprot = 1\n[retrieval]\nembeder = 'x'\n")
    with pytest.raises(InvalidConfiguration) as caught:
        load_settings()
    assert "did you mean 'server.port'" in caught.value.message
    assert "did you mean 'retrieval.embedder'" in caught.value.message


@pytest.mark.parametrize("word", ["changeme", "password", "CHANGE_ME"])
def test_placeholder_password_is_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(InvalidConfiguration, match="placeholder") as caught:
        load_settings(database_url=f"postgresql://me:{word}@host/db")
    assert f":{word}@" not in caught.value.message


def test_database_password_is_not_shown() -> None:
    settings = load_settings(database_url="postgresql://me:hunter2x@host/db")
    assert "hunter2x" not in repr(settings)
    assert "hunter2x" in settings.database_location


def test_unknown_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_SERVER__PROT", "2")
    with pytest.raises(InvalidConfiguration, match="did you mean 'RAGSTONE_SERVER__PORT'"):
        load_settings()


def test_plugin_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__EMBEDDER_OPTIONS", '{"dimension": 32}')
    assert load_settings().retrieval.embedder_options == {"dimension": 32}


def test_broken_file_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("ragstone.toml").write_text("[server\n")
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        load_settings()
    monkeypatch.setenv("RAGSTONE_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(InvalidConfiguration, match=r"absent\.toml"):
        load_settings()
