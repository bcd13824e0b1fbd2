"""Rules of texts: length, language and what identifies a person."""

from __future__ import annotations

from collections import Counter

import polars as pl

from infra.errors import InvalidRequest
from infra.expectations import text_rules
from infra.expectations.evaluation import Judged, Table, judge_by
from infra.expectations.recognizers import find

_LANGUAGE_CHARACTERS = 2_000
"""Read of a text to tell its language."""
_WORD = r"\S+"


def evaluate_length(rule: text_rules.Length, table: Table) -> Judged:
    """Count characters or words."""
    values = column_of_text(table, rule.column)
    counted = (
        values.str.len_chars() if rule.unit == "characters" else values.str.count_matches(_WORD)
    )
    lengths = counted.cast(pl.Int64)
    good = pl.repeat(value=True, n=len(lengths), dtype=pl.Boolean, eager=True)
    if rule.min is not None:
        good &= (lengths >= rule.min).fill_null(value=True)
    if rule.max is not None:
        good &= (lengths <= rule.max).fill_null(value=True)
    observed = {"shortest": lengths.min(), "longest": lengths.max(), "unit": rule.unit}
    return Judged(
        good,
        len(values) - values.null_count(),
        observed,
        lambda position: f"{lengths[position]} {rule.unit}",
    )


def evaluate_language(rule: text_rules.Language, table: Table) -> Judged:
    """Guess the language of each text that is long enough."""
    identifier = table.models.languages
    unknown = sorted(set(rule.languages) - set(identifier.labels))
    if unknown:
        known = ", ".join(sorted(identifier.labels))
        raise InvalidRequest(f"languages {unknown!r} cannot be told; there are {known}")
    reasons: list[str | None] = []
    languages: Counter[str] = Counter()
    for text in column_of_text(table, rule.column):
        reason = None
        if text is not None and len(text.strip()) >= rule.min_characters:
            language, confidence = identifier.classify(text[:_LANGUAGE_CHARACTERS])
            if confidence >= rule.min_confidence:
                languages[language] += 1
                reason = f"in {language!r}" if language not in rule.languages else None
        reasons.append(reason)
    return judge_by(reasons, checked=languages.total(), languages=dict(languages.most_common(10)))


def evaluate_pii(rule: text_rules.Pii, table: Table) -> Judged:
    """Search each text for what identifies a person."""
    columns = [column_of_text(table, name) for name in rule.columns]
    reasons: list[str | None] = []
    kinds: Counter[str] = Counter()
    for texts in zip(*columns, strict=True):
        found = {hit.kind for text in texts if text for hit in find(text, rule.kinds)}
        kinds.update(found)
        reasons.append(f"holds {', '.join(sorted(found))}" if found else None)
    return judge_by(reasons, checked=len(reasons), rows_by_kind=dict(kinds.most_common()))


def column_of_text(table: Table, name: str) -> pl.Series:
    """Return a column of text.

    Raises:
        InvalidRequest: it holds something else.
    """
    table.require(name, ["string"], "text")
    return table.values(name).cast(pl.String)
