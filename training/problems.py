"""What is wrong with a fine-tuning before it starts: every problem with the key or row it is at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from infra.errors import InvalidRequest

SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that must be mended."""

    check: str
    """The check that found it."""
    where: str
    """A key of the specification such as `schedule.packing`, or rows such as `data.train row 7`."""
    what: str
    """What is wrong and what to do, in one line."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Refused(InvalidRequest):
    """A fine-tuning cannot start; `problems` holds all that is wrong, a line each."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        lines = [f"  {problem}" for problem in problems]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{name!r} is refused, {count}:\n" + "\n".join(lines), parameter="spec")
        self.problems = tuple(problems)


def at_rows(key: str, rows: Sequence[int], *, total: int | None = None) -> str:
    """Return the name of rows of a source, the first few by number, counted from 1.

    >>> at_rows("data.train", [3, 9, 12, 13, 20, 21, 40])
    'data.train rows 3, 9, 12, 13, 20 and 2 more'
    """
    total = len(rows) if total is None else total
    shown = ", ".join(str(row) for row in rows[:SHOWN_ROWS])
    more = total - min(total, SHOWN_ROWS)
    word = "row" if total == 1 else "rows"
    return f"{key} {word} {shown}" + (f" and {more:,} more" if more else "")
