"""Regex: 1 where a pattern of the suite, or the case's own, matches somewhere in the answer."""

from __future__ import annotations

from typing import Any, ClassVar

from anyio import to_thread
from pydantic import field_validator

from evals.context import Context
from evals.metric import Parameters
from evals.metrics._answers import said, settled
from evals.scores import Score
from evals.trial import Case, Output
from infra.plugins import require

LONGEST_SECONDS = 2.0
"""For all patterns of a case; most take microseconds, some more years than there are."""
LONGEST_PATTERN = 1_000
"""Characters; compiling takes time that grows with their square, and cannot be stopped."""


class Regex(Parameters):
    version: ClassVar[int] = 2
    is_pass_or_fail: ClassVar[bool] = True

    pattern: str = ""
    """As Python's `re` has it; the references of a case are the patterns where it is absent."""
    ignore_case: bool = False
    expect: bool = True
    """False wants that nothing matches."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        wrong = _wrong(value)
        if wrong:
            raise ValueError(wrong)
        return value

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        if not self.pattern:
            known = settled(case, output)
            if known is not None:
                return known
        patterns = (self.pattern,) if self.pattern else case.references
        return await to_thread.run_sync(self._search, patterns, said(output))

    def _search(self, patterns: tuple[str, ...], answer: str) -> Score:
        library = _library()
        flags = library.IGNORECASE if self.ignore_case else 0
        seconds = LONGEST_SECONDS / len(patterns)
        for each in patterns:
            wrong = _wrong(each)
            if wrong:
                return Score.error(wrong)
            try:
                found = library.search(each, answer, flags, timeout=seconds, concurrent=True)
            except TimeoutError:
                return Score.error(
                    f"{each!r:.80} was not done with {len(answer):,} characters in {seconds:g} s; "
                    "repeat nothing that repeats, as in (a+)+"
                )
            if found:
                return Score.of(self.expect)
        return Score.of(not self.expect)


def _library() -> Any:
    # The standard library's cannot be stopped.
    return require("regex", extra="evals")


def _wrong(pattern: str) -> str:
    """Return why a pattern cannot be searched for, or nothing."""
    if len(pattern) > LONGEST_PATTERN:
        return f"a pattern has {len(pattern):,} characters; it may have {LONGEST_PATTERN:,}"
    library = _library()
    try:
        library.compile(pattern)
    except library.error as error:
        return f"{pattern!r:.80} is no regular expression: {error}"
    return ""


build = Regex.model_validate
