"""A rubric: what a judge is told to look at, what it is shown, and a scale with its anchors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evals import problems
from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.expectations import yaml_text

FILE = "rubric.yaml"
"""In the artifact's folder."""
MAX_BYTES = 64 * 2**10
SHIPPED = Path(__file__).parent / "rubrics"
Kind: TypeAlias = Literal["score", "preference"]
Shown: TypeAlias = Literal["question", "reference", "passages"]
Text = Annotated[str, Field(min_length=1, max_length=20_000)]
CHOICES = ("first", "second", "neither")
"""What a judge can say of two answers."""


class Rubric(BaseModel):
    """By which a judge scores an answer, or prefers one of two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: int = Field(ge=1)
    """For people; what tells two rubrics apart is their digest."""
    kind: Kind = "score"
    instructions: Text
    shows: tuple[Shown, ...] = ("question",)
    """What the judge sees beside the answer; a case that lacks it is unscored."""
    scale: dict[int, Text] = Field(default_factory=dict, max_length=100)
    """What each score means; a preference has none."""

    @model_validator(mode="after")
    def _has_a_scale(self) -> Rubric:
        if (self.kind == "score") is (len(self.scale) < 2):
            raise ValueError(
                "scale: a score needs two levels or more, a preference has none; write such as "
                "`scale: {1: 'Wrong.', 2: 'Right.'}`"
            )
        if len(set(self.shows)) < len(self.shows):
            raise ValueError(f"shows: {list(self.shows)!r} names one thing twice")
        return self

    @property
    def digest(self) -> str:
        """The same for the same rubric, wherever it is kept."""
        content = orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    @property
    def title(self) -> str:
        """What runs record of it."""
        return f"{self.name} version {self.version} {self.digest}"

    @property
    def levels(self) -> tuple[int, ...]:
        """The scores there are, lowest first."""
        return tuple(sorted(self.scale))

    @property
    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema of a judge's answer: reasons first, so that they can lead to it."""
        answer: dict[str, Any] = {"type": "string", "enum": list(CHOICES)}
        if self.kind == "score":
            answer = {"type": "integer", "enum": list(self.levels)}
        name = "score" if self.kind == "score" else "better"
        return {
            "type": "object",
            "properties": {"reasoning": {"type": "string"}, name: answer},
            "required": ["reasoning", name],
            "additionalProperties": False,
        }


def parse(text: str, *, source: str = FILE) -> Rubric:
    """Read a rubric from YAML.

    Raises:
        InvalidRequest: it is not YAML, or a key is unknown, missing or wrong; all are named.
        TooLarge: it has more than `MAX_BYTES`.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise TooLarge(f"{source} has more than {MAX_BYTES:,} bytes; a rubric is a page of text")
    try:
        return Rubric.model_validate(yaml_text.parse(text, source=source))
    except ValidationError as error:
        words = problems.of_model(error, Rubric)
        raise InvalidRequest(f"{source} is no rubric: {words}") from None


def shipped() -> list[str]:
    """Names of the rubrics that come with the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def shipped_text(name: str) -> str:
    """Return a shipped rubric as YAML.

    Raises:
        NotFound: none has this name.
    """
    if name not in shipped():
        raise NotFound("rubric", name, among=shipped(), are_few=True)
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def read_shipped(name: str) -> Rubric:
    """Return a shipped rubric. Raises as `shipped_text`."""
    return parse(shipped_text(name), source=f"the shipped {name}.yaml")
