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


class Regex(Parameters):
    version: ClassVar[int] = 2

    pattern: str = ""
    """As Python's `re` has it; the references of a case are the patterns where it is absent."""
    ignore_case: bool = False
    expect: bool = True
    """False wants that nothing matches."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        library = _library()
        try:
            library.compile(value)
        except library.error as error:
            raise ValueError(_malformed(value, error)) from None
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
        for each in patterns:
            try:
                seconds = LONGEST_SECONDS / len(patterns)
                found = library.search(each, answer, flags, timeout=seconds, concurrent=True)
            except library.error as error:
                return Score.error(_malformed(each, error))
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


def _malformed(pattern: str, error: Exception) -> str:
    return f"{pattern!r:.80} is no regular expression: {error}"


build = Regex.model_validate
