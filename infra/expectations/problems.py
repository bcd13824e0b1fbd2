"""Says what is wrong with a suite: which check, which key, and the nearest name there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from infra.expectations.table_rules import ColumnType


@dataclass(frozen=True, slots=True)
class Wording:
    """What is needed to say a problem of one suite."""

    content: Mapping[str, Any]
    """The suite as it was given."""
    keys: Iterable[str]
    """Those that a suite may have."""
    rules: Mapping[str, type[BaseModel]]
    """Every rule by its name."""

    def of(self, problem: Mapping[str, Any]) -> str:
        """Return the words for one of pydantic's problems."""
        kind, place = problem["type"], list(problem["loc"])
        where, names = self._place(place)
        if kind == "extra_forbidden":
            return f"{where}unknown key {place[-1]!r}{_nearest(str(place[-1]), names)}"
        if kind == "union_tag_invalid":
            tag = str(problem["ctx"]["tag"])
            return f"{where}unknown rule {tag!r}{_nearest(tag, self.rules)}"
        if kind == "union_tag_not_found":
            return f"{where}it needs a 'rule', one of {', '.join(self.rules)}"
        own = problem["msg"].removeprefix("Value error, ")
        given = repr(problem["input"])
        shown = f" (not {given[:60]})" if kind not in {"missing", "value_error"} else ""
        key = ".".join(map(str, place[3:] if where else place))
        return f"{where}{key}{': ' if key else ''}{own[:1].lower()}{own[1:]}{shown}"

    def _place(self, place: Sequence[Any]) -> tuple[str, Iterable[str]]:
        """Return the words for where it is, and the keys that may stand there."""
        if len(place) < 2 or place[0] != "checks" or not isinstance(place[1], int):
            return "", self.keys
        rule = self.content["checks"][place[1]]
        tag = str(rule.get("rule")) if isinstance(rule, dict) else ""
        title = f"check {place[1] + 1}" + (f" ({tag})" if tag in self.rules else "") + ": "
        if ColumnType.__name__ in place:
            return title, ColumnType.model_fields
        return title, self.rules[tag].model_fields if tag in self.rules else ()


def _nearest(name: str, among: Iterable[str]) -> str:
    known = list(among)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
