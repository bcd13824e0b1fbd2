"""Regex: 1 where a pattern of the suite, or the case's own, matches somewhere in the answer."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import field_validator

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled
from evals.scores import Score
from evals.trial import Case, Output


class Regex(Parameters):
    version: ClassVar[int] = 2

    pattern: str = ""
    """Of Python's `re`; the references of a case are the patterns where it is absent."""
    ignore_case: bool = False
    expect: bool = True
    """False wants that nothing matches."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        if not self.pattern:
            known = settled(case, output)
            if known is not None:
                return known
        patterns = (self.pattern,) if self.pattern else case.references
        flags = re.IGNORECASE if self.ignore_case else 0
        answer = said(output)
        found = any(re.search(each, answer, flags) for each in patterns)
        return Score.of(found == self.expect)


build = Regex.model_validate
