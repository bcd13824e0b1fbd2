"""What metrics that judge by a rubric share: what the judge sees, and its answer, read strictly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from evals.context import Context
from evals.judges import prompt, rating
from evals.judges.asking import ask
from evals.judges.instrument import Instrument
from evals.judges.prompt import Exhibit
from evals.judges.rating import Rating
from evals.judges.rubric import Kind, Rubric, read_shipped
from evals.metrics._answers import SILENT
from evals.metrics._judged import Judged
from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.trial import Case, Output


def opened(value: Any) -> Any:
    return read_shipped(value) if isinstance(value, str) else value


class ByRubric(Judged):
    """A judge with a rubric, asked one or several times."""

    kind: ClassVar[Kind]

    rubric: Annotated[Rubric, BeforeValidator(opened)]
    """A shipped one by its name; in a suite also a file beside it, or `rubric/NAME@v2`."""
    samples: int = Field(default=1, ge=1, le=25)
    """How often it is asked, with a seed for each."""

    @model_validator(mode="after")
    def _fits(self) -> ByRubric:
        if self.rubric.kind != self.kind:
            raise ValueError(
                f"the rubric {self.rubric.name!r} asks for a {self.rubric.kind}; this metric needs "
                f"one that asks for a {self.kind}"
            )
        return self

    @property
    def instrument(self) -> Instrument:
        """What its agreement with people is kept by."""
        return Instrument(self.rubric, self.model, self.temperature, self.samples)

    @property
    def identified(self) -> dict[str, Any]:
        """The parameters whose names alone do not say what they are."""
        return {"rubric": self.rubric.title, "prompt": prompt.VERSION}

    async def rate(self, exhibits: Sequence[Exhibit], context: Context, seed: int) -> Rating:
        """Ask once.

        Raises:
            JudgeRefused, Unusable: there is no rating, and would be none if it were asked again.
            RagstoneError: the judge cannot be asked.
        """
        made = prompt.messages(self.rubric, exhibits)
        question = self.question(made, self.rubric.output_schema, seed=seed, is_strict=True)
        return rating.read(await ask(question, context), self.rubric)

    def background(self, case: Case, passages: Output) -> list[Exhibit] | Score:
        """Return what the judge sees beside answers, or why it cannot."""
        shown: list[Exhibit] = []
        for each in self.rubric.shows:
            match each:
                case "question":
                    texts = [case.question.strip()]
                case "reference":
                    texts = list(case.references)
                case "passages":
                    texts = [passage.text for passage in passages.passages]
            if not any(texts):
                return Score.unscored(f"the case has no {each}, which the rubric shows")
            title = each.removesuffix("s")
            if len(texts) == 1:
                shown.append(Exhibit(title, texts[0]))
            else:
                shown += [Exhibit(f"{title} {n}", text) for n, text in enumerate(texts, 1)]
        return shown


def refusal_score(case: Case, output: Output) -> Score | None:
    """Return the score of an answer that says nothing, where the rubric shows no reference."""
    if is_silent(output):
        return Score.of(0.0, SILENT) if case.answerable is False else Score.unscored(SILENT)
    if not is_refusal(output):
        return None
    if case.answerable is False:
        return Score.of(1.0, "rightly refused")
    return Score.unscored("a refusal says nothing to judge")


def default(name: str) -> partial[Rubric]:
    """Return what opens a shipped rubric when it is needed."""
    return partial(read_shipped, name)
