"""Suggests a suite that a table, or the one a profile was taken of, passes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infra.expectations import facts
from infra.expectations.facts import Facts
from infra.expectations.suite import MAX_CHECKS, Suite, build_suite
from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

    from infra.datasets.profile import Profile
    from infra.expectations.evaluation import Models

_REPEATED = 5
"""How often a value must occur on average before the values are taken for categories."""
_FEWEST_UNIQUE = 20
"""Rows below which it says nothing that the values of a column differ."""
_LONGEST_KEY = 64
_TEXT_CHARACTERS = 40
"""The longest text of a column of prose has at least so many."""
_SAMPLED_TEXTS = 200
_KEY_NAME = re.compile(r"(?:.*[_ -])?(?:id|key|uuid|guid|code)|.*Id|.*ID", re.ASCII)
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def suggest(source: Profile | pl.DataFrame | pl.LazyFrame, *, name: str = "suggested") -> Suite:
    """Propose checks that hold now; the author strikes what holds by chance.

    Of a profile only what it says can be proposed. Of a table chat rows, languages and what
    identifies a person are looked at too; where some rows fail, that share is allowed.
    """
    clean = _NAME.sub("-", name).strip("-._")[:128] or "suggested"
    if not hasattr(source, "collect_schema"):
        return build_suite({"name": clean, "checks": _known(list(facts.of_profile(source)))})
    frame: pl.DataFrame = source.lazy().collect()  # type: ignore[union-attr]
    known = list(facts.of_frame(frame))
    checks = _known(known) + list(_looked_at(frame, known))
    return build_suite({"name": clean, "checks": checks[:MAX_CHECKS]})


def _known(columns: list[Facts]) -> list[dict[str, Any]]:
    rows = max((column.rows for column in columns), default=0)
    checks: list[dict[str, Any]] = [
        {"rule": "rows", "min": rows // 2 or min(rows, 1), "severity": "warning"}
    ]
    if columns:
        types = {column.name: column.family for column in columns}
        checks.insert(0, {"rule": "columns", "columns": types})
    for column in columns:
        checks += _of_column(column)
    return checks[:MAX_CHECKS]


def _of_column(column: Facts) -> Iterator[dict[str, Any]]:
    about = {"column": column.name}
    if column.rows and not column.missing:
        yield {"rule": "nulls", **about}
    elif column.present:
        share = _allowed(column.missing, column.rows)
        yield {"rule": "nulls", **about, "max_failing_share": share, "severity": "warning"}
    if _is_key(column):
        named = _KEY_NAME.fullmatch(column.name)
        yield {
            "rule": "unique",
            "columns": [column.name],
            "severity": "required" if named else "warning",
        }
    if column.values and column.present >= _REPEATED * len(column.values):
        yield {"rule": "categories", **about, "values": list(column.values)}
    elif column.longest is not None and column.present:
        bounds = {"min": column.shortest, "max": column.longest}
        yield {"rule": "length", **about, **bounds, "severity": "warning"}
    bounds = {key: at for key, at in (("min", column.low), ("max", column.high)) if at is not None}
    if bounds:
        yield {"rule": "range", **about, **bounds, "severity": "warning"}


def _is_key(column: Facts) -> bool:
    return (
        column.family in {"integer", "string"}
        and column.distinct == column.rows >= _FEWEST_UNIQUE
        and (column.longest or 0) <= _LONGEST_KEY
    )


def _looked_at(frame: pl.DataFrame, columns: Iterable[Facts]) -> Iterator[dict[str, Any]]:
    """Yield the checks that only the values themselves can suggest."""
    for package in ("polars", "pandera.polars"):
        require(package, extra="data")
    from infra.expectations import checking
    from infra.expectations.evaluation import Models

    models = Models()
    candidates = list(_candidates(frame, columns, models))[:MAX_CHECKS]
    if not candidates:
        return
    tried = build_suite({"name": "tried", "checks": candidates})
    # No rule that is tried looks at the clock.
    clock = datetime.fromtimestamp(0, UTC)
    report = checking.run(tried, frame.lazy(), now=clock, samples=0, models=models)
    for check, found in zip(candidates, report.results, strict=False):
        if not found.checked or found.failing is None or found.failing > found.checked // 2:
            continue
        if found.failing:
            share = _allowed(found.failing, found.checked)
            check |= {"max_failing_share": share, "severity": "warning"}
        yield check


def _candidates(
    frame: pl.DataFrame, columns: Iterable[Facts], models: Models
) -> Iterator[dict[str, Any]]:
    for column in columns:
        values = frame.get_column(column.name)
        if column.family == "list":
            yield from _chat(column.name, values)
        prose = column.family == "string" and (column.longest or 0) >= _TEXT_CHARACTERS
        if not prose or column.values:
            continue
        yield {"rule": "pii", "columns": [column.name]}
        language = _language(values, models)
        if language is not None:
            yield {
                "rule": "language",
                "column": column.name,
                "languages": [language],
                "severity": "warning",
            }


def _chat(name: str, values: pl.Series) -> Iterator[dict[str, Any]]:
    """Take a list of structs with a role and a content for conversations."""
    pl = require("polars", extra="data")
    inner = getattr(values.dtype, "inner", None)
    fields = {field.name for field in inner.fields} if isinstance(inner, pl.Struct) else set()
    if {"role", "content"} <= fields:
        yield {"rule": "chat", "column": name}
    elif {"from", "value"} <= fields:
        yield {
            "rule": "chat",
            "column": name,
            "role_field": "from",
            "content_field": "value",
            "user": "human",
            "assistant": "gpt",
            "tool": "observation",
            "call": "function_call",
        }


def _language(values: pl.Series, models: Models) -> str | None:
    """Return the language of most texts of a sample."""
    texts = [text for text in values.drop_nulls().head(_SAMPLED_TEXTS) if len(text) >= 20]
    if not texts:
        return None
    counts = Counter(models.languages.classify(text[:1_000])[0] for text in texts)
    language, count = counts.most_common(1)[0]
    return str(language) if count > len(texts) / 2 else None


def _allowed(failing: int, rows: int) -> float:
    """Return a share that is not below the one found, in steps of a thousandth."""
    return min(1.0, math.ceil(failing / rows * 1000) / 1000)
