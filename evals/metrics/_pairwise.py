"""Which of two answers a judge prefers, asked in both orders; a preference that turns is a tie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from evals.context import Context
from evals.judges.prompt import Exhibit
from evals.judges.rubric import Kind, Rubric
from evals.judges.samples import Samples, majority, take
from evals.metrics._answers import said
from evals.metrics._by_rubric import ByRubric, default, opened
from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.trial import Case, Output
from infra.errors import TooLarge

OUTPUT, OTHER, TIE = "output", "other", "tie"
OUTCOMES = (OTHER, TIE, OUTPUT)
"""Worst first."""
_WITH_THE_ANSWER_FIRST = {"first": OUTPUT, "second": OTHER, "neither": TIE}
_WITH_THE_OTHER_FIRST = {"first": OTHER, "second": OUTPUT, "neither": TIE}


@dataclass(frozen=True, slots=True)
class Compared:
    """What a judge said of two answers in both orders."""

    answer_first: str
    """`output`, `other` or `tie`."""
    other_first: str
    reasonings: tuple[str, str] = ("", "")

    @property
    def is_consistent(self) -> bool:
        """Whether the order made no difference."""
        return self.answer_first == self.other_first

    @property
    def outcome(self) -> str:
        return self.answer_first if self.is_consistent else TIE


class Pairwise(ByRubric):
    """The answer beside another one."""

    kind: ClassVar[Kind] = "preference"

    rubric: Annotated[Rubric, BeforeValidator(opened)] = Field(
        default_factory=default("preference")
    )
    against: Literal["reference", "baseline"] = "reference"
    """The case's reference, or what the evaluation that is compared with answered."""
    baseline: str = ""
    """The digest of that evaluation; filled in when the run is planned."""

    @property
    def identified(self) -> dict[str, Any]:
        return {**super().identified, "baseline": self.baseline}

    async def compare(
        self, case: Case, output: Output, context: Context
    ) -> Samples[Compared] | Score:
        """Return what the judge says, or the score that needs no judge."""
        other = self._other(case, context)
        if isinstance(other, Score):
            return other
        shown = self.background(case, output)
        if isinstance(shown, Score):
            return shown
        mine, theirs = said(output), said(other)

        async def sample(seed: int) -> Compared:
            found = []
            for first, second, means in (
                (mine, theirs, _WITH_THE_ANSWER_FIRST),
                (theirs, mine, _WITH_THE_OTHER_FIRST),
            ):
                both = [Exhibit("first answer", first), Exhibit("second answer", second)]
                rated = await self.rate([*shown, *both], context, seed)
                found.append((means[str(rated.value)], rated.reasoning))
            (mine_first, why), (other_first, why_other) = found
            return Compared(mine_first, other_first, (why, why_other))

        known = _settled(case, output, other)
        if known is not None:
            return known
        try:
            samples = await take(self.samples, context.seed, sample)
        except TooLarge as error:
            return Score.unscored(error.message)
        return samples.lacking() or samples

    def _other(self, case: Case, context: Context) -> Output | Score:
        if self.against == "reference":
            if not any(case.references):
                return Score.unscored("the case has no reference")
            return Output(next(each for each in case.references if each))
        found = context.baseline.get(case.id)
        if found is None:
            return Score.unscored("there is no answer of a baseline to compare with")
        return found


def inconsistency(samples: Samples[Compared]) -> float:
    """Return the share of samples in which the order decided."""
    return sum(not each.is_consistent for each in samples.values) / len(samples.values)


def outcome(samples: Samples[Compared]) -> str:
    """Return what most samples say, else a tie."""
    return majority([each.outcome for each in samples.values], otherwise=TIE)


def _settled(case: Case, output: Output, other: Output) -> Score | None:
    """Return what follows from who refused and who should have; the same answers are a tie."""
    mine, theirs = (is_refusal(each) or is_silent(each) for each in (output, other))
    if mine and theirs:
        return _certain(TIE, "both refused")
    if mine or theirs:
        refuses_rightly = case.answerable is False
        wins = OUTPUT if mine is refuses_rightly else OTHER
        who = "the answer" if mine else "the other"
        return _certain(wins, f"{who} {'rightly ' if refuses_rightly else ''}refused")
    if said(output).split() == said(other).split():
        return _certain(TIE, "the answers are the same")
    return None


def _certain(found: str, reason: str) -> Score:
    return Score.of(OUTCOMES.index(found) / 2, reason, outcome=found)
