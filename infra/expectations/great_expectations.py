"""Reads suites of Great Expectations, of the forms 0.x and 1.x, as suites of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.errors import InvalidRequest, RagstoneError
from infra.expectations.expression import parse
from infra.expectations.suite import Check, Suite, build_suite
from infra.expectations.translators import TRANSLATORS, Arguments, Untranslatable

_IGNORED = frozenset(
    {"batch_id", "catch_exceptions", "include_config", "result_format", "table", "meta"}
)
"""Arguments that say how a result is shown or where the data is, not what it must satisfy."""
_CHECK: TypeAdapter[Any] = TypeAdapter(Check)
_CONDITION_PARSERS = (None, "pandas", "great_expectations", "great_expectations__experimental__")
_WHOLE = frozenset({"columns", "rows", "statistic", "freshness"})
"""Rules of the table as a whole, of which no share can fail."""
EXPECTATIONS = tuple(TRANSLATORS)
"""Those that are understood."""


def is_suite(content: Any) -> bool:
    """Say whether a JSON value has the form of a suite of Great Expectations."""
    return isinstance(content, dict) and isinstance(content.get("expectations"), list)


def translate(content: Mapping[str, Any], *, source: str = "the suite") -> Suite:
    """Return a suite with what can be checked; what cannot is named in `Suite.untranslated`.

    Raises:
        InvalidRequest: it has no expectations, or none that can be checked.
    """
    if not is_suite(content):
        raise InvalidRequest(f"{source} is no suite of Great Expectations: no 'expectations'")
    checks: list[dict[str, Any]] = []
    untranslated = []
    for number, expectation in enumerate(content["expectations"], start=1):
        try:
            checks += _translate_one(expectation)
        except Untranslatable as reason:
            untranslated.append(f"{_title(number, expectation)}: {reason}")
    if not checks:
        reasons = "; ".join(untranslated[:5]) or "it has no expectations"
        raise InvalidRequest(f"{source} holds nothing that can be checked here: {reasons}")
    name = str(content.get("name") or content.get("expectation_suite_name") or "suite")
    return build_suite(
        {
            "name": re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:128] or "suite",
            "checks": checks,
            "untranslated": untranslated,
        },
        source=source,
    )


def _title(number: int, expectation: Any) -> str:
    kind = _kind(expectation) if isinstance(expectation, dict) else None
    return f"expectation {number} ({kind})" if kind else f"expectation {number}"


def _kind(expectation: Mapping[str, Any]) -> str | None:
    kind = expectation.get("type") or expectation.get("expectation_type")
    return kind if isinstance(kind, str) else None


def _translate_one(expectation: Any) -> list[dict[str, Any]]:
    if not isinstance(expectation, dict) or _kind(expectation) is None:
        raise Untranslatable("it names no type")
    kind = _kind(expectation)
    translator = TRANSLATORS.get((kind or "").lower())
    if translator is None:
        raise Untranslatable("there is no such check here")
    given = expectation.get("kwargs") or {}
    if not isinstance(given, dict):
        raise Untranslatable("its kwargs are no object")
    arguments = {
        key: value for key, value in given.items() if value is not None and key not in _IGNORED
    }
    extra = _severity(expectation, arguments) | _condition(arguments)
    mostly = arguments.pop("mostly", 1)
    try:
        made = translator(arguments)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Untranslatable(f"its arguments are not understood: {error!r}") from None
    if arguments:
        raise Untranslatable(f"arguments {sorted(arguments)} have no counterpart")
    return [_checked({**check, **_allowance(check, mostly), **extra}) for check in made]


def _severity(expectation: Mapping[str, Any], arguments: Arguments) -> dict[str, Any]:
    severity = expectation.get("severity") or arguments.pop("severity", None) or "critical"
    return {"severity": "required" if severity == "critical" else "warning"}


def _condition(arguments: Arguments) -> dict[str, Any]:
    condition = arguments.pop("row_condition", None)
    parser = arguments.pop("condition_parser", None)
    if condition is None:
        return {}
    if not isinstance(condition, str) or parser not in _CONDITION_PARSERS:
        raise Untranslatable(f"the row condition {condition!r} is of another language")
    where = re.sub(r"\bcol\(", "column(", condition)
    where = re.sub(r"\.notNull\(\)|\.not_null\(\)", " is not None", where)
    try:
        parse(where)
    except RagstoneError as error:
        raise Untranslatable(f"its row condition: {error.message}") from None
    return {"where": where}


def _allowance(check: Mapping[str, Any], mostly: Any) -> dict[str, Any]:
    if mostly == 1:
        return {}
    if not isinstance(mostly, int | float) or check["rule"] in _WHOLE:
        raise Untranslatable(f"mostly {mostly!r} has no counterpart")
    # As decimal digits, so that mostly 0.9 allows 0.1 and not 0.09999999999999998.
    return {"max_failing_share": round(1 - mostly, 12)}


def _checked(check: dict[str, Any]) -> dict[str, Any]:
    """Refuse one check that is malformed without refusing the suite."""
    try:
        _CHECK.validate_python(check)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"][1:]))
        raise Untranslatable(f"{place + ': ' if place else ''}{problem['msg']}") from None
    return check
