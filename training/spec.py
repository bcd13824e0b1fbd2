"""The specification of a fine-tuning: YAML in, one frozen value out, every problem named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.expectations import yaml_text
from training.specification.base import Base
from training.specification.data import Data
from training.specification.delivery import BASE, Compress, Evaluate, Register, Serve
from training.specification.machines import Parallelism, Runtime
from training.specification.method import Method
from training.specification.part import Part
from training.specification.schedule import Schedule
from training.specification.sweep import Sweep

VERSION = 1
"""Of the format; a file from a later release is refused by name."""
UNLEARNED = ("parallelism", "runtime", "compress")
"""Sections that say who trains and where, and what is made of it; what is learned is the same."""
MAX_BYTES = 1 << 20
MAX_SHOWN = 100
"""Characters of a wrong value that a message repeats."""

Kind = TypeVar("Kind", bound=Part)


class FineTuning(Part):
    """All that decides what comes out of a fine-tuning."""

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = Field(default=17, ge=0, lt=2**32)
    base: Base
    data: Data
    method: Method = Method()
    schedule: Schedule
    parallelism: Parallelism = Parallelism()
    runtime: Runtime = Runtime()
    evaluate: Evaluate = Evaluate()
    register_as: Register | None = Field(default=None, alias="register")
    """Without it, the adapter stays in the folder of the run."""
    compress: Compress | None = None
    serve: Serve | None = None
    sweep: Sweep | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> FineTuning:
        if self.serve is not None and self.register_as is None:
            raise ValueError("serve needs register: servers take adapters from the store")
        if self.evaluate.against != BASE and self.register_as is None:
            raise ValueError("evaluate.against names an alias, of which adapter says register")
        return self

    @property
    def digest(self) -> str:
        """Equal for specifications that say the same, whatever the order of their keys."""
        return digest_of(as_json(self))

    @property
    def learning_digest(self) -> str:
        """Equal for specifications by which the same is learned, on whatever devices."""
        return digest_of(learning(as_json(self)))


class InvalidSpecification(InvalidRequest):
    """A specification cannot be read; the message holds every problem, each with its key."""

    def __init__(
        self, source: str, problems: list[str], places: Iterable[tuple[str | int, ...]] = ()
    ) -> None:
        super().__init__(f"{source}: " + "; ".join(problems), parameter="spec")
        self.problems = problems
        self.places = tuple(places)
        """What is wrong, or misses something, as pydantic names it."""


def read(path: Path) -> FineTuning:
    """Return what a YAML file says; paths in it are taken from its folder.

    Raises as `load` and `parse` do.
    """
    return parse(load(path), source=repr(str(path)))


def load(path: Path) -> Any:
    """Return the values of a specification's YAML file.

    Raises:
        NotFound: there is no such file.
        TooLarge: it is longer than any specification.
        InvalidRequest: it is not YAML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound("specification", str(path)) from None
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{str(path)!r} is larger than {MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8: {error}") from None
    return yaml_text.parse(text, source=repr(str(path)))


def parse(values: Any, *, source: str = "the specification") -> FineTuning:
    """Check values that came from outside. Raises as `check` does."""
    return check(FineTuning, values, source=source)


def check(kind: type[Kind], values: Any, *, source: str) -> Kind:
    """Return a specification of some kind from values that came from outside.

    Raises:
        InvalidSpecification: names every key that is unknown, missing or wrong.
    """
    if not isinstance(values, dict):
        what = "the whole: no mapping of keys; it begins with 'version: 1'"
        raise InvalidSpecification(source, [what])
    version = values.get("version", VERSION)
    if type(version) is int and version > VERSION:
        raise InvalidSpecification(
            source,
            [f"version: {version} is of a later release; this one reads up to {VERSION}"],
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        words = [_words(each, values) for each in problems]
        there = [
            each["loc"][:-1] if each["type"] == "missing" else each["loc"] for each in problems
        ]
        raise InvalidSpecification(source, words, there) from None


def as_json(spec: Part) -> dict[str, Any]:
    """Return a specification as JSON's values, with every default, as `parse` reads it back."""
    return spec.model_dump(mode="json", by_alias=True)


def learning(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a specification, as JSON, that decide what is learned."""
    return {key: value for key, value in values.items() if key not in UNLEARNED}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a specification, for editors."""
    return schema_of(FineTuning)


def schema_of(kind: type[Part]) -> dict[str, Any]:
    """Return the JSON Schema of some kind of specification."""
    found = kind.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def digest_of(values: Mapping[str, Any]) -> str:
    """Return what is equal for values that say the same, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _words(problem: Any, values: Any) -> str:
    is_about_a_key = problem["type"] in {"extra_forbidden", "missing"}
    key = _key(problem["loc"], values, with_last=is_about_a_key)
    said = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{key}: there is no such key"
    if problem["type"] == "missing":
        return f"{key}: missing"
    shown = repr(problem["input"])
    if isinstance(problem["input"], dict) or len(shown) > MAX_SHOWN:
        return f"{key}: {said}"
    return f"{key}: {said}, not {shown}"


def _key(location: tuple[str | int, ...], values: Any, *, with_last: bool) -> str:
    """Return the dotted key, without what pydantic adds to tell members of a union apart."""
    parts = []
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if isinstance(values, dict) and (part in values or (is_last and with_last)):
            values = values.get(part)
        elif isinstance(values, list | tuple) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            continue
        parts.append(str(part))
    return ".".join(parts) or "the whole"
