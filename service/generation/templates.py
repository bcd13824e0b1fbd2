"""Prompt templates: a small YAML form, read strictly, with slots that nothing can fill twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import InvalidRequest, TooLarge
from infra.expectations import yaml_text

FILE = "prompt.yaml"
"""In the artifact's folder."""
MAX_BYTES = 64 * 2**10
Task: TypeAlias = Literal["answer", "rewrite"]
SHIPPED: tuple[Task, ...] = ("answer", "rewrite")
_SLOT = re.compile(r"\{(sources|question|history|fence|refusal)\}")
_NEEDED: Mapping[Task, tuple[str, ...]] = {
    "answer": ("sources", "question"),
    "rewrite": ("history", "question"),
}

Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Example(_Strict):
    """An answered question that the model is shown before the real one."""

    sources: Annotated[list[Text], Field(max_length=10)] = []
    question: Text
    answer: Text


class Template(_Strict):
    """What a model is told, and how."""

    task: Task
    system: Text
    """May name {fence}, {refusal}."""
    user: Text
    """The last message: {sources} and {question}, or {history} and {question}."""
    heading: Annotated[str, Field(min_length=1, max_length=200)] = "{title}"
    """The first line of each source: {title}, {source}, {number}."""
    refusal: Annotated[str, Field(pattern=r"^[A-Z][A-Z_]{5,39}$")] = "NOT_IN_SOURCES"
    """What the model says, alone, where the sources hold no answer."""
    refusal_text: Annotated[str, Field(min_length=1, max_length=500)] = "The documents do not say."
    """What the caller reads then."""
    examples: Annotated[list[Example], Field(max_length=8)] = []
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0

    @model_validator(mode="after")
    def _has_its_slots(self) -> Template:
        for slot in _NEEDED[self.task]:
            if self.user.count(f"{{{slot}}}") != 1:
                raise ValueError(f"user must hold {{{slot}}} once")
        if self.task == "answer" and "{refusal}" not in self.system + self.user:
            raise ValueError("system or user must hold {refusal}, so that the model can decline")
        return self

    @property
    def digest(self) -> str:
        """What answers record: the same for the same template, wherever it is kept."""
        content = orjson.dumps(self.model_dump(), option=orjson.OPT_SORT_KEYS)
        return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse(text: str, *, source: str = FILE) -> Template:
    """Read a template.

    Raises:
        InvalidRequest: it is not YAML, or a key is unknown, missing or wrong; all are named.
        TooLarge: it has more than `MAX_BYTES`.
    """
    if len(text.encode()) > MAX_BYTES:
        raise TooLarge(f"{source} has more than {MAX_BYTES:,} bytes")
    try:
        return Template.model_validate(yaml_text.parse(text, source=source))
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors(include_url=False))
        raise InvalidRequest(f"{source} is not a prompt template: {problems}") from None


def shipped_text(task: Task) -> str:
    """Return the template that comes with the package, as YAML."""
    place = files(__package__).joinpath("prompts", f"{task}.yaml")
    return place.read_text(encoding="utf-8")


def shipped(task: Task) -> Template:
    return parse(shipped_text(task), source=f"the shipped {task}.yaml")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values into slots, once: what a value says is never taken for a slot."""
    return _SLOT.sub(lambda found: values.get(found[1], found[0]), text)


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
