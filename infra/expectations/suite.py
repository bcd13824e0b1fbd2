"""A suite: the checks that a table must pass, as a strict model read from YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import orjson
from pydantic import Field, StringConstraints, ValidationError

from infra.errors import InvalidRequest, TooLarge
from infra.expectations import yaml_text
from infra.expectations.problems import Wording
from infra.expectations.rules import Rule, Strict
from infra.expectations.table_rules import Columns, Freshness, Rows, Statistic
from infra.expectations.text_rules import Chat, Duplicates, Language, Length, Pii
from infra.expectations.value_rules import (
    Categories,
    Expression,
    Nulls,
    Pattern,
    Range,
    Unique,
)

MAX_BYTES = 4 * 2**20
MAX_CHECKS = 1_000
_SHOWN_PROBLEMS = 8

AnyRule: TypeAlias = (
    Columns
    | Rows
    | Nulls
    | Unique
    | Range
    | Categories
    | Pattern
    | Statistic
    | Freshness
    | Expression
    | Length
    | Language
    | Duplicates
    | Pii
    | Chat
)
Check: TypeAlias = Annotated[AnyRule, Field(discriminator="rule")]
RULES: Mapping[str, type[Rule]] = {
    get_args(model.model_fields["rule"].annotation)[0]: model for model in get_args(AnyRule)
}
"""Every rule by the name it has in a suite."""


class Suite(Strict):
    """What a table must satisfy; equal suites have equal digests."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    description: str = ""
    """For people; not part of the digest."""
    key: tuple[str, ...] = ()
    """Columns that tell rows apart; the report shows them beside a failing value."""
    checks: Annotated[
        tuple[Check, ...],
        Field(min_length=1, max_length=MAX_CHECKS),
    ]
    untranslated: tuple[str, ...] = ()
    """Expectations of the suite this was read from that have no counterpart; each is a warning."""

    @property
    def digest(self) -> str:
        """`sha256:` and the hash of everything that decides a verdict."""
        content = self.model_dump(exclude={"description"})
        # A date is not the text that looks like it.
        options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
        text = orjson.dumps(content, option=options, default=repr)
        return f"sha256:{hashlib.sha256(text).hexdigest()}"

    def to_yaml(self) -> str:
        """Return the suite as YAML that `parse_suite` reads back as equal."""
        content = self.model_dump(exclude_defaults=True)
        content["checks"] = [
            {"rule": check.rule, **check.model_dump(exclude_defaults=True)} for check in self.checks
        ]
        return yaml_text.write(content)


def parse_suite(text: str, *, source: str = "the suite") -> Suite:
    """Read a suite from YAML, or from JSON, which is YAML too.

    Raises:
        InvalidRequest: it is malformed, or has keys, rules or values that do not exist; the message
            names each with the nearest that does.
        TooLarge: it is longer or deeper than a suite may be.
    """
    return build_suite(yaml_text.parse(text, source=source), source=source)


def build_suite(content: Any, *, source: str = "the suite") -> Suite:
    """Make a suite of plain values, as `parse_suite` does of text."""
    if not isinstance(content, dict):
        raise InvalidRequest(f"{source} holds no mapping; write 'name: ...' and 'checks: ...'")
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=True)
        if len(problems) > 1:  # a suite whose only check is wrong is also one without checks
            problems = [item for item in problems if item["loc"] != ("checks",)]
        wording = Wording(content, Suite.model_fields, RULES)
        lines = [wording.of(problem) for problem in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
        raise InvalidRequest(f"{source} is not a suite: {'; '.join(lines)}") from None


def read_suite(path: Path) -> Suite:
    """Read a suite from a file: ours in YAML, or one of Great Expectations in JSON.

    Raises:
        InvalidRequest, TooLarge: as `parse_suite` does; or the file is not text in UTF-8.
    """
    from infra.expectations import great_expectations

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TooLarge(f"{str(path)!r} has {size} bytes; a suite has at most {MAX_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8: {error.reason}") from None
    if path.suffix.lower() == ".json":
        content = _json(text, path)
        if great_expectations.is_suite(content):
            return great_expectations.translate(content, source=str(path))
        return build_suite(content, source=str(path))
    return parse_suite(text, source=str(path))


def _json(text: str, path: Path) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not JSON: {error}") from None
