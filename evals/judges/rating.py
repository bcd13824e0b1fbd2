"""What a judge said, read strictly: JSON with the keys that were asked for and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.judges.asking import JudgeRefused, Unusable
from evals.judges.rubric import Rubric
from evals.refusals import declines
from infra.words import whole

MAX_CHARACTERS = 50_000
MAX_REASONING_CHARACTERS = 1_000
"""That are kept; scores are written for every case."""
_SHOWN = 120
Choice: TypeAlias = Literal["first", "second", "neither"]


@dataclass(frozen=True, slots=True)
class Rating:
    """A judge's answer that can be used."""

    value: int | str
    """A level of the scale; of a preference `first`, `second` or `neither`."""
    reasoning: str
    """Cut off where it is long."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    reasoning: str


class _Score(_Strict):
    score: int


class _Preference(_Strict):
    better: Choice


def read(text: str, rubric: Rubric) -> Rating:
    """Return what a judge answered.

    Raises:
        JudgeRefused: it declines in words.
        Unusable: it is not the JSON that was asked for, or not on the scale; says which.
    """
    said = whole(text.strip())
    if len(said) > MAX_CHARACTERS:
        raise Unusable(f"the judge answered {len(said):,} characters, {_quoted(said)}")
    try:
        if rubric.kind == "preference":
            preferred = _Preference.model_validate_json(said)
            return Rating(preferred.better, _short(preferred.reasoning))
        scored = _Score.model_validate_json(said)
    except ValidationError as error:
        if declines(said):
            raise JudgeRefused(f"the judge said {_quoted(said)}") from None
        raise Unusable(
            f"the judge answered {_quoted(said)}, which is not the JSON that was asked for: "
            f"{_what(error)}"
        ) from None
    if scored.score not in rubric.scale:
        levels = ", ".join(map(str, rubric.levels))
        raise Unusable(f"the judge gave {scored.score!r:.40}, which is not on the scale {levels}")
    return Rating(scored.score, _short(scored.reasoning))


def _short(reasoning: str) -> str:
    if len(reasoning) <= MAX_REASONING_CHARACTERS:
        return reasoning
    return f"{reasoning[:MAX_REASONING_CHARACTERS]}..."


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _what(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
