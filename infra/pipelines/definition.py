"""What a pipeline file says: parameters, and steps with inputs, outputs, code and limits."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from infra.artifacts.refs import split
from infra.errors import InvalidRequest, RagstoneError
from infra.pipelines.parameters import as_text, fill, near, overridden
from infra.pipelines.reading import read_yaml

MAX_STEPS = 500
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name; use lower case letters, digits, '_' and '-'")
    return value


def _place(value: Any) -> str:
    """A path below the folder of the pipeline, or of the step."""
    path = PurePosixPath(value) if isinstance(value, str) else PurePosixPath("/")
    if path.is_absolute() or ".." in path.parts or not path.parts or "\x00" in str(path):
        raise ValueError(f"{value!r} is not a relative path without '..'")
    return str(path)


def _variable(value: Any) -> str:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value!r} is not the name of a variable; give the name alone")
    return value


def _artifact(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a name such as 'dataset/faq'")
    _valid(lambda: split(value))
    return value


def _valid(check: Any) -> None:
    try:
        check()
    except RagstoneError as error:
        raise ValueError(error.message) from None


def _quantity(units: Mapping[str, int]) -> Any:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = _QUANTITY.fullmatch(value.strip())
        if found is None or found[2] not in units:
            raise ValueError(f"{value!r} is not a number with one of {', '.join(units)}")
        amount = float(found[1]) * units[found[2]]
        return int(amount) if amount.is_integer() else amount

    return BeforeValidator(read)


Name = Annotated[str, BeforeValidator(_name)]
Place = Annotated[str, BeforeValidator(_place)]
Variable = Annotated[str, BeforeValidator(_variable)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Needs(_Part):
    """What a step holds while it runs."""

    cpu: float = Field(default=1.0, ge=0, le=4096)
    gpu: int = Field(default=0, ge=0, le=1024)
    memory: Annotated[int, _quantity(_BYTES)] = Field(default=0, ge=0)
    """Bytes."""


class Output(_Part):
    """A folder or file that a step leaves, and the artifact it becomes."""

    artifact: Annotated[str, BeforeValidator(_artifact)]
    path: Place
    tabular: bool | None = None
    """Whether columns and statistics of its rows are recorded, as `ragstone datasets put` does; by
    default those of a `dataset` whose files are all Parquet, all JSON Lines or all CSV."""


class Step(_Part):
    """One step; exactly one of `run` and `python` says what it does."""

    run: tuple[str, ...] = ()
    """A program and its arguments; no shell."""
    python: str = ""
    """`module:function`, called with its inputs and outputs as paths, and with `with`."""
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    inputs: dict[Name, str] = Field(default_factory=dict)
    """By local name, a reference to an artifact, or `./` and a path beside the pipeline file."""
    outputs: dict[Name, Output] = Field(default_factory=dict)
    after: tuple[str, ...] = ()
    """Steps that must have succeeded before, though nothing of theirs is read."""
    code: tuple[Place, ...] = ()
    """Files, folders and patterns beside the pipeline file that the step needs."""
    environment: tuple[Variable, ...] = ()
    """Variables that are passed on; their values are part of what the step depends on."""
    secrets: tuple[Variable, ...] = ()
    """Variables that are passed on, and whose values change nothing."""
    resources: Needs = Needs()
    retries: int = Field(default=0, ge=0, le=100)
    """How often it is tried again after it failed."""
    retry_delay: Annotated[float, _quantity(_SECONDS)] = Field(default=5.0, ge=0, le=86400)
    """Seconds before the first retry; doubled each time."""
    timeout: Annotated[float, _quantity(_SECONDS)] | None = Field(default=None, gt=0)
    """Seconds after which it is ended, and has failed."""

    @model_validator(mode="before")
    @classmethod
    def _write_out(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        outputs = value.get("outputs")
        if isinstance(outputs, dict):
            outputs = {
                name: {"artifact": output} if isinstance(output, str) else output
                for name, output in outputs.items()
            }
            outputs = {
                name: {"path": f"outputs/{name}", **output} if isinstance(output, dict) else output
                for name, output in outputs.items()
            }
            value = {**value, "outputs": outputs}
        return value

    @model_validator(mode="after")
    def _one_thing_to_do(self) -> Step:
        if bool(self.run) == bool(self.python):
            raise ValueError("needs either `run` (a command) or `python` (module:function)")
        if self.python and not _ENTRY.fullmatch(self.python):
            raise ValueError(f"python: {self.python!r} is not of the form 'module:function'")
        if self.arguments and not self.python:
            raise ValueError("`with` is for `python`; a command takes its arguments in `run`")
        for text in self.local_names.values():
            _place(text)
        names = [*self.inputs, *self.outputs, *self.arguments]
        for name in names:
            if self.python and not name.isidentifier():
                raise ValueError(f"{name!r} cannot be an argument of a function; use '_'")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is used twice among inputs, outputs and `with`")
        return self

    @property
    def local_names(self) -> dict[str, str]:
        """Inputs that are files beside the pipeline file, as they are written there."""
        return {name: text for name, text in self.inputs.items() if text.startswith("./")}

    @property
    def local_inputs(self) -> dict[str, str]:
        """Their paths, by local name."""
        return {name: _place(text) for name, text in self.local_names.items()}


class Pipeline(_Part):
    """A pipeline with its parameters filled in."""

    name: Name = Field(alias="pipeline")
    description: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    steps: dict[Name, Step] = Field(min_length=1, max_length=MAX_STEPS)


def load(path: Path, given: Mapping[str, str] | None = None) -> Pipeline:
    """Read a pipeline file, with some parameters overridden.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is malformed; names every key that is unknown or wrong.
    """
    document = read_yaml(path)
    try:
        return parse(document, given or {})
    except InvalidRequest as error:
        raise InvalidRequest(f"{str(path)!r}: {error.message}") from None


def parse(document: Any, given: Mapping[str, str]) -> Pipeline:
    """Make a pipeline of what a file said; raises as `load` does."""
    if not isinstance(document, dict) or not isinstance(document.get("steps"), dict):
        raise InvalidRequest("a pipeline has a name (`pipeline:`) and `steps:`, by name")
    declared = document.get("params") or {}
    if not isinstance(declared, dict):
        raise InvalidRequest("params: names and their defaults")
    params = overridden(declared, given)
    steps = {name: _step(name, step, params) for name, step in document["steps"].items()}
    try:
        return Pipeline.model_validate({**document, "params": params, "steps": steps})
    except ValidationError as error:
        raise InvalidRequest(_explain(error)) from None


def _step(name: str, step: Any, params: Mapping[str, Any]) -> Any:
    if not isinstance(step, dict):
        return step
    return {key: _filled(value, params, where=f"steps.{name}.{key}") for key, value in step.items()}


def _filled(value: Any, params: Mapping[str, Any], *, where: str) -> Any:
    key = where.rpartition(".")[2]
    if key == "run":
        # Split first: a parameter with a blank in it stays one argument.
        words = _split(value, where=where) if isinstance(value, str) else value
        words = fill(words, params, where=where, keep_places=True)
        if isinstance(words, list):
            return [as_text(word, where=where) for word in words]
        return words
    return fill(value, params, where=where, keep_places=key == "with")


def _split(text: str, *, where: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidRequest(f"{where}: {error}: {text!r}") from None


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            hint = near(str(problem["loc"][-1]), _known(problem["loc"]))
            lines.append(f"{key}: unknown key{hint}")
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)


def _known(location: tuple[int | str, ...]) -> list[str]:
    model: type[_Part] = Pipeline
    if "resources" in location[2:3]:
        model = Needs
    elif "outputs" in location[2:3]:
        model = Output
    elif location[0] == "steps":
        model = Step
    return [info.alias or name for name, info in model.model_fields.items()]
