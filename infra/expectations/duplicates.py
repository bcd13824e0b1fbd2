"""The rule of duplicates: texts that stand twice, or nearly."""

from __future__ import annotations

import polars as pl

from infra.expectations.evaluation import Judged, Table
from infra.expectations.text_rules import Duplicates
from infra.expectations.texts import column_of_text
from infra.near_texts import NearTexts


def evaluate_duplicates(rule: Duplicates, table: Table) -> Judged:
    """Find texts that stand twice, or nearly."""
    texts = [
        _normal(text) if text is not None else None for text in column_of_text(table, rule.column)
    ]
    first: dict[str, int] = {}
    twins: list[int | None] = []
    for place, text in enumerate(texts):
        twin = None if text is None else first.setdefault(text, place)
        twins.append(None if twin == place else twin)
    exact = sum(twin is not None for twin in twins)
    if rule.similarity is not None:
        twins = _with_near_twins(texts, twins, rule.similarity)
    near = sum(twin is not None for twin in twins) - exact
    good = pl.Series("good", [twin is None for twin in twins], dtype=pl.Boolean)
    return Judged(
        good,
        sum(text is not None for text in texts),
        {"exact": exact, "near": near},
        lambda position: f"as row {table.row(twins[position] or 0)}",
    )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _with_near_twins(
    texts: list[str | None], twins: list[int | None], similarity: float
) -> list[int | None]:
    """Add, for texts that have no twin yet, an earlier text that is nearly the same."""
    index = NearTexts(texts, similarity)
    return [
        index.twin(place) if text and twins[place] is None else twins[place]
        for place, text in enumerate(texts)
    ]
