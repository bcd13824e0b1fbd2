"""`python -m benchmarks`: what it lists, refuses and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command


def test_without_a_name_the_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    for name in ("index_scale", "ingest", "search", "start"):
        assert name in listed


def test_an_unknown_name_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ingets"]) == 2
    answer = capsys.readouterr().out
    assert "'ingets'" in answer
    assert "ingest" in answer


def test_every_benchmark_has_a_line_and_can_be_loaded() -> None:
    found = command.available()
    assert {"ingest", "search", "start"} <= found.keys()
    for name, line in found.items():
        assert line, name
        assert callable(command.load(name)), name


@pytest.mark.parametrize("name", ["groundedness", "guards", "ingest", "search"])
def test_quick_form_prints_a_table_and_writes_json(
    name: str,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAGSTONE_TEST_DATA", str(shared_data))
    file = tmp_path / "figures.json"
    arguments = [name, "--quick", "--no-peers", "--embedder", "hashing", "--json", str(file)]
    assert command.main(arguments) == 0
    assert f"ragstone benchmark: {name}" in capsys.readouterr().out
    value = json.loads(file.read_text(encoding="utf-8"))
    assert value["machine"]["packages"]
    assert all(row["ours"]["median"] >= 0 for row in value["rows"])


@pytest.mark.parametrize("part", ["0", "1.5", "-1", "nan", "half"])
def test_an_impossible_part_is_refused(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["ingest", f"--part={part}"])
    assert stopped.value.code == 2
    assert part in capsys.readouterr().err
