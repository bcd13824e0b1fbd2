"""Writes Arrow's times as ISO 8601 text, whatever century they lie in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Meaning = Literal["moment", "time of day", "duration"]

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_SECONDS = 86_400
_TYPE = re.compile(r"(timestamp|time32|time64|duration)\[(s|ms|us|ns)(, tz=.*)?\]")


@dataclass(frozen=True, slots=True)
class Clock:
    """How the integers of a column of times are read."""

    meaning: Meaning
    unit: str
    """As numpy names it: D, s, ms, us or ns."""
    per_second: float
    zoned: bool = False
    """The integers count in UTC."""

    @classmethod
    def of(cls, type_name: str) -> Clock:
        """Read the name of an Arrow type of times."""
        match = _TYPE.fullmatch(type_name)
        if match is None:  # date32[day]
            return cls("moment", "D", 1 / _DAY_SECONDS)
        meanings: dict[str, Meaning] = {"timestamp": "moment", "duration": "duration"}
        meaning = meanings.get(match[1], "time of day")
        return cls(meaning, match[2], float(_UNITS[match[2]]), match[3] is not None)

    def show(self, value: int) -> str | float:
        """Return ISO 8601, in UTC where the column has a zone; of a duration its seconds."""
        if self.meaning == "moment":
            moment = np.array(value, np.int64).view(f"datetime64[{self.unit}]")
            return f"{moment}{'Z' if self.zoned else ''}"
        if self.meaning == "duration":
            return value / self.per_second
        units = _UNITS[self.unit]
        seconds, rest = divmod(value, units)
        minutes, second = divmod(seconds, 60)
        fraction = f".{rest:0{len(str(units)) - 1}}" if rest else ""
        return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{fraction}"
