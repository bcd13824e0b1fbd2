"""The page of an exploration: one HTML file about the columns of a table, that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from evals.reports import figures
from evals.reports.contents import Distribution
from evals.reports.elements import Element, document, element, number, short
from infra.datasets.profile import Column
from training.tabular.exploring import Exploration, outliers

MOST_COLUMNS = 200
MOST_HINTS = 200
MOST_VALUES = 8
_NAME = 120


def write(found: Exploration) -> bytes:
    """Return the page in UTF-8."""
    style = resources.files("evals.reports").joinpath("page.css").read_text(encoding="utf-8")
    return document(
        f"Exploration of {short(found.name, _NAME)}",
        style,
        _top(found),
        element("main", *_hints(found), *_powers(found), *_columns(found)),
    )


def _top(found: Exploration) -> Element:
    facts = [
        ("rows", f"{found.profile.rows:,}"),
        ("columns", f"{len(found.profile.columns):,}"),
        ("target", found.target or "none"),
        ("task", found.task or "none"),
        ("equal rows", f"{found.duplicates:,}"),
        ("rows that contradict another", f"{found.contradictions:,}"),
    ]
    listed = [
        part
        for key, value in facts
        for part in (element("dt", key), element("dd", short(value, _NAME)))
    ]
    return element(
        "header",
        element("p", "Exploration", class_="kicker"),
        element("h1", short(found.name, _NAME)),
        element("dl", *listed),
    )


def _hints(found: Exploration) -> Iterator[Element]:
    yield element("h2", "Look at this")
    if not found.hints:
        yield element("p", "Nothing that stands out.", class_="note")
        return
    rows = [
        element("tr", element("th", each.kind, scope="row"), element("td", short(str(each), 400)))
        for each in found.hints[:MOST_HINTS]
    ]
    yield _table(element("tbody", *rows))


def _powers(found: Exploration) -> Iterator[Element]:
    if not found.powers:
        return
    metric = found.powers[0].metric
    yield element("h2", "What each column alone predicts")
    chance = "0.5 is chance" if metric == "AUROC" else "0 is what a constant reaches"
    yield element("p", f"{metric} of a small tree in three folds; {chance}.", class_="note")
    within = (0.0, 1.0)
    rows = [
        element(
            "tr",
            element("th", short(each.column, _NAME), scope="row"),
            element("td", figures.strip(None, each.value, within=within)),
            element("td", number(each.value), class_="number"),
        )
        for each in found.powers[:MOST_COLUMNS]
    ]
    yield _table(element("tbody", *rows))


def _columns(found: Exploration) -> Iterator[Element]:
    yield element("h2", "Columns")
    shown = found.profile.columns[:MOST_COLUMNS]
    yield element("div", *(_column(each, found.profile.rows) for each in shown), class_="grid")
    if len(shown) < len(found.profile.columns):
        yield element("p", f"Only the first {len(shown)} are shown.", class_="note")


def _column(column: Column, rows: int) -> Element:
    missing = column.nulls / max(1, rows)
    said = [f"{column.type}", f"missing {missing:.1%}"]
    if column.distinct is not None:
        said.append(f"{column.distinct:,} values")
    far = outliers(column)
    if far:
        said.append(f"far out {far:.1%}")
    return element(
        "figure",
        element("figcaption", short(column.name, _NAME)),
        element("p", element("small", ", ".join(said))),
        _distribution(column),
        _frequent(column, rows),
    )


def _distribution(column: Column) -> Element | None:
    numbers = column.numbers
    if column.kind != "number" or numbers is None or not sum(numbers.counts):
        return None
    return figures.histogram(
        Distribution(column.name, numbers.edges[0], numbers.edges[-1], numbers.counts)
    )


def _frequent(column: Column, rows: int) -> Element | None:
    if column.kind == "number" or not column.top:
        return None
    found = [
        element(
            "tr",
            element("td", short(str(each.value), 60)),
            element("td", f"{each.count / max(1, rows):.1%}", class_="number"),
        )
        for each in column.top[:MOST_VALUES]
    ]
    return element("table", element("tbody", *found))


def _table(body: Element) -> Element:
    return element("div", element("table", body), class_="wide")
