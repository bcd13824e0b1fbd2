"""What a check of a table found: one result for each rule, with a few failing rows, masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from infra.expectations.recognizers import find, mask
from infra.expectations.rules import Severity

MAX_CHARACTERS = 200
"""Of one value in a report."""
_MAX_READ = 10_000
"""Characters of a value that are looked at before it is cut."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that failed."""

    row: int
    """Counted from 0."""
    values: Mapping[str, Any]
    """By column: those of the rule, and the suite's key; text is cut and masked."""
    reason: str = ""
    """What is wrong with it, where the rule can fail in several ways."""


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict of one rule."""

    name: str
    rule: str
    severity: Severity
    passed: bool
    message: str
    """In words: what was found, and what is allowed."""
    columns: tuple[str, ...] = ()
    checked: int | None = None
    """Rows that the rule looked at; `None` if it speaks of the table as a whole."""
    failing: int | None = None
    """Rows of these that fail."""
    observed: Mapping[str, Any] = field(default_factory=dict)
    """Figures that explain the verdict."""
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict of a suite on a table."""

    suite: str
    suite_digest: str
    rows: int
    columns: int
    passed: bool
    """No required check failed."""
    checked_at: datetime
    """By the clock of whoever checked."""
    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """Required checks that failed."""
        return tuple(r for r in self.results if not r.passed and r.severity == "required")

    @property
    def warnings(self) -> tuple[Result, ...]:
        """Checks that failed and are not required."""
        return tuple(r for r in self.results if not r.passed and r.severity == "warning")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "checked_at": self.checked_at.isoformat()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """Read what `as_dict` gave."""
        return cls(
            **{
                **content,
                "checked_at": datetime.fromisoformat(content["checked_at"]),
                "results": tuple(_result(item) for item in content["results"]),
            }
        )


def shown(value: Any) -> Any:
    """Return a value as a report may keep it: a JSON value, short, without what identifies anyone.

    >>> shown("write to ada@example.org")
    'write to <email>'
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value if not find(str(value), ["card"]) else "<card>"
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, date | timedelta):
        return str(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        value = repr(value)
    text = mask(str(value)[:_MAX_READ])
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"


def _result(content: Mapping[str, Any]) -> Result:
    samples = tuple(Sample(**sample) for sample in content["samples"])
    return Result(**{**content, "columns": tuple(content["columns"]), "samples": samples})
