"""What an exploration finds in planted tables and in real ones, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import loans
from infra.errors import NotFound
from service import exploration_page
from training.tabular import reading
from training.tabular.exploring import Exploration, as_values, explore, leaks
from training.tabular.specification import TableSource

pytest.importorskip("sklearn")


def real(folder: Path, name: str, target: str) -> Exploration:
    source = TableSource(rows=str(folder / "tabular" / name))
    rows = reading.read(source, folder=Path(), datasets=None)
    return explore(rows.frame, name=name, target=target, task=None)


def said(found: Exploration) -> str:
    return "\n".join(map(str, found.hints))


def test_what_was_planted_is_found() -> None:
    rows = loans.table()
    draw = np.random.default_rng(1)
    far = np.where(draw.random(600) < 0.03, -999.0, draw.normal(50, 5, 600))
    planted = rows.with_columns(
        pl.Series("score", far),
        pl.Series("note", np.where(draw.random(600) < 0.2, "?", "seen")),
        pl.Series("reference", [f"L{place:05}" for place in range(600)]),
        pl.Series("closed", [None if each == "paid" else 1.0 for each in rows["outcome"]]),
    )
    found = explore(planted, name="loans", target="outcome", task=None, seed=2)
    words = said(found)
    assert found.task == "classification"
    assert "'score' is -999 in" in words
    assert "'note' is '?' in" in words
    assert "'reference' is different in every row" in words
    assert "'closed' predicts the target by being missing: AUROC 1.000" in words
    assert {each.column for each in leaks(found)} == {"reference", "closed"}
    assert found.duplicates == found.contradictions == 0


def test_rows_that_repeat_and_contradict_are_counted() -> None:
    rows = pl.DataFrame({"a": [1, 1, 2, 2, 3], "y": ["p", "p", "p", "q", "q"]})
    found = explore(rows, name="few", target="y", task=None)
    assert (found.duplicates, found.contradictions) == (1, 2)
    with pytest.raises(NotFound, match="'y'"):
        explore(rows, name="few", target="yy", task=None)


def test_without_a_target_columns_are_still_looked_at() -> None:
    found = explore(loans.table(), name="loans", target=None, task=None)
    assert found.powers == ()
    assert as_values(found)["rows"] == 600


def test_what_gives_the_survivors_of_the_titanic_away_is_found(shared_data: Path) -> None:
    found = real(shared_data, "titanic/titanic.csv.gz", "survived")
    assert [each.column for each in leaks(found)] == ["alive"]
    assert found.powers[0].value == pytest.approx(1.0)
    assert "'deck' is missing in 77% of the rows" in said(found)


def test_rentals_that_are_the_sum_of_two_columns_are_found(shared_data: Path) -> None:
    found = real(shared_data, "bike_sharing/day.csv.gz", "cnt")
    assert found.task == "regression"
    assert "'cnt' is a sum of columns" in said(found)


def test_german_credit_gives_nothing_away(shared_data: Path) -> None:
    assert leaks(real(shared_data, "german_credit/german.csv.gz", "class")) == []


def test_the_page_shows_names_as_text_and_loads_nothing() -> None:
    rows = loans.table(100).rename({"place": "<script>alert(1)</script>"})
    found = explore(rows, name="loans & <b>", target="outcome", task=None)
    page = exploration_page.write(found).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    for name in ("income", "outcome", "What each column alone predicts"):
        assert name in page
