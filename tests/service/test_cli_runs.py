"""`ragstone runs`: list, show, compare, plot, export, delete, mirror."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.settings import load_settings
from infra.tracking.points import Bucket
from service.cli import plots
from service.cli.entry import app
from service.cli.figures import Chart, Line, draw
from service.wiring import Components

pytestmark = pytest.mark.usefixtures("migrated_here")

SVG = "{http://www.w3.org/2000/svg}"


def run(*words: str, code: int = 0, typed: str | None = None) -> Any:
    result = CliRunner().invoke(app, ["runs", *words], input=typed)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Components]:
    components = Components(load_settings())
    yield components
    components.close()


@pytest.fixture
def two(parts: Components) -> list[str]:
    """Two runs that differ in their rate, their metrics and their data."""
    ids = []
    for number, rate in enumerate((0.1, 0.01)):
        told = {"optimizer": {"rate": rate, "name": "adam"}}
        with parts.tracker.run("sft", name=f"rate {rate}", parameters=told) as started:
            for step in range(100):
                started.log({"loss": math.exp(-rate * step)}, step=step)
            started.log({"odd": math.nan})
            started.use(f"dataset/faq@v{number}", role="train", digest=f"sha256:{number}")
            ids.append(started.id)
    return ids


def test_list_shows_runs_newest_first_with_what_is_asked_for(two: list[str]) -> None:
    shown = run("list", "--metric", "loss", "--parameter", "optimizer.rate").stdout
    heading, first, second = shown.splitlines()
    assert heading.split()[-3:] == ["optimizer.rate", "loss", "id"]
    assert two[1] in first
    assert " 0.01 " in first
    assert "0.371577" in first
    assert two[0] in second
    listed = json.loads(run("list", "--json").stdout)
    assert [each["id"] for each in listed] == list(reversed(two))
    assert json.loads(run("list", "--kind", "evaluation", "--json").stdout) == []


def test_list_of_nothing_says_so() -> None:
    assert run("list").stderr == "No runs\n"


def test_unknown_state_names_those_there_are() -> None:
    assert (
        "there are running, finished, failed, killed, lost"
        in run("list", "--state", "done", code=1).stderr
    )


def test_show_tells_everything_and_plots(two: list[str]) -> None:
    shown = run("show", "rate 0.1", "--metric", "loss").stdout
    for word in (two[0], "finished", "optimizer.rate", "dataset/faq@v0", "sha256:0", "NaN", "│"):
        assert word in shown
    described = json.loads(run("show", two[0], "--json", "--packages").stdout)
    assert described["metrics"]["odd"]["last"] == "NaN"
    assert described["metrics"]["loss"]["count"] == 100
    assert described["artifacts"][0]["role"] == "train"
    assert any(line.startswith("rich==") for line in described["packages_list"])


def test_show_of_an_unknown_run_or_metric_suggests_near_names(two: list[str]) -> None:
    assert "did you mean 'rate 0.1'" in run("show", "rat 0.1", code=1).stderr
    assert "did you mean 'loss'" in run("show", "rate 0.1", "--metric", "los", code=1).stderr


def test_compare_marks_what_differs_and_nothing_else(two: list[str]) -> None:
    lines = run("compare", *two).stdout.splitlines()
    marked = {line[3:].split("  ")[0].strip() for line in lines if line.startswith("* ")}
    assert {"optimizer.rate", "loss", "loss (lowest)", "used as train"} <= marked
    unmarked = [line for line in lines if line.startswith("   ")]
    assert any("optimizer.name" in line for line in unmarked)
    assert any("python" in line for line in unmarked)
    only = run("compare", *two, "--differences").stdout
    assert "optimizer.name" not in only
    assert "optimizer.rate" in only
    rows = {row["name"]: row for row in json.loads(run("compare", *two, "--json").stdout)["rows"]}
    assert rows["optimizer.rate"]["values"] == [0.1, 0.01]
    assert rows["optimizer.rate"]["differs"] is True
    assert rows["optimizer.name"]["differs"] is False
    assert rows["odd"] == {
        "section": "metrics",
        "name": "odd",
        "values": ["NaN", "NaN"],
        "differs": False,
    }


def test_compare_needs_two(two: list[str]) -> None:
    assert "Compare 2 to 20 runs, not 1" in run("compare", two[0], code=1).stderr


def test_plots_are_files_that_load_nothing(two: list[str], tmp_path: Path) -> None:
    run("compare", *two, "--plot", "runs.svg")
    picture = ElementTree.fromstring((tmp_path / "runs.svg").read_text())
    assert picture.tag == f"{SVG}svg"
    titles = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"loss", "odd", "no finite values", f"rate 0.1 ({two[0]})"} <= set(titles)
    assert len([path for path in picture.iter(f"{SVG}path") if path.get("fill") == "none"]) == 2
    run("show", two[0], "--metric", "loss", "--plot", "run.html")
    page = (tmp_path / "run.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "src=" not in page
    assert "href=" not in page
    assert "neither .svg nor .html" in run("show", two[0], "--plot", "x.png", code=1).stderr


def test_export_is_read_back(two: list[str], tmp_path: Path) -> None:
    whole = json.loads(run("export", two[0]).stdout)
    assert len(whole["metrics"]["loss"]["points"]) == 100
    assert whole["metrics"]["odd"]["points"][0]["value"] == "NaN"
    run("export", two[0], "--csv", "--output", "points.csv")
    with (tmp_path / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 101
    assert (rows[0]["metric"], rows[0]["step"], float(rows[0]["value"])) == ("loss", "0", 1.0)
    assert rows[100]["value"] == "NaN"


def test_delete_asks_first(two: list[str]) -> None:
    run("delete", two[0], typed="n\n", code=1)
    assert len(json.loads(run("list", "--json").stdout)) == 2
    assert run("delete", two[0], "rate 0.01", "--yes").stdout == "Deleted 2 runs\n"
    assert json.loads(run("list", "--json").stdout) == []


def test_mirror_catches_up(
    two: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parts: Components
) -> None:
    assert "No mirrors" in run("mirror").stderr
    monkeypatch.setenv("RAGSTONE_TRACKING__MIRRORS", '["tensorboard"]')
    monkeypatch.setenv("RAGSTONE_TRACKING__MIRROR_OPTIONS", '{"tensorboard": {"folder": "board"}}')
    (tmp_path / "board").write_text("in the way")
    later = Components(load_settings())
    with later.tracker.run("sft") as started:
        started.log({"x": 1.0})
    later.close()
    assert json.loads(run("mirror", "--json", code=1).stdout) == {
        "mirrors": ["tensorboard"],
        "lagging": 1,
    }
    (tmp_path / "board").unlink()
    assert run("mirror").stdout == "tensorboard: no runs behind\n"
    assert len(list((tmp_path / "board").iterdir())) == 1


def _line(values: list[float]) -> Line:
    buckets = [
        Bucket(step, step, 0.0, 1, int(math.isnan(value)), value, value, value)
        for step, value in enumerate(values)
    ]
    return Line("x", buckets)


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [1.0, 1.0],
        [math.nan, 1.0, math.inf, 2.0],
        [-1.7e308, 1.7e308],
        [0.0, 5e-324],
        [math.nan],
        [],
    ],
)
def test_any_values_are_drawn(values: list[float]) -> None:
    lines = plots.draw([_line(values)], width=60, height=6)
    assert all(len(line) <= 60 for line in lines)
    ElementTree.fromstring(draw([Chart("<&>", [_line(values), _line(values)])]))
    assert len(plots.draw([_line(values), _line(values)], width=60, height=6)) >= 1


def test_plot_marks_the_extremes_where_they_are() -> None:
    lines = plots.draw([_line([0.0, 0.0, 5.0, 0.0])], width=40, height=4)
    top, bottom = lines[0], lines[3]
    assert top.split("│")[0].strip() == "5"
    assert bottom.split("│")[0].strip() == "0"
    assert len(top.split("│")[1].strip()) == 1
    assert lines[4].split() == ["0", "3"]
