"""What a suite can evaluate: what is served, a URL, a function, recorded outputs, a constant."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text: TypeAlias = Annotated[str, StringConstraints(min_length=1)]


class Strict(BaseModel):
    """Immutable; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class CollectionTarget(Strict):
    """Answers from the documents of a collection, with citations."""

    kind: Literal["collection"]
    collection: Text
    generator: str | None = None
    """The model that writes the answer; as the settings say if absent."""
    limit: Annotated[int, Field(ge=1, le=100)] | None = None
    """Passages to answer from; as the settings say if absent."""
    filter: dict[str, Any] | None = None
    """Restricts the documents by their metadata."""


class _Chat(Strict):
    model: Text
    system: str | None = None
    """What stands before the question."""
    max_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    refusals: tuple[str, ...] = ("The documents do not say.",)
    """Answers that begin like one of these say that the model does not know, beside those that
    refuse in English words."""


class ModelTarget(_Chat):
    """Answers by a route of the gateway, in its own words; no documents are looked up."""

    kind: Literal["model"]
    tag: str | None = None
    """The one target of the route that may answer, such as `canary` for a candidate."""


class ClassicalTarget(Strict):
    """Predicts by a classical model of the store, with the thresholds that it is served with."""

    kind: Literal["classical"]
    model: Text
    """Without `model/`."""
    version: Text | None = None
    """Such as `v3`, or an alias, such as `candidate`; what is served if absent."""


class UrlTarget(_Chat):
    """Answers by any server that speaks OpenAI's chat completions."""

    kind: Literal["url"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]
    """Without `/v1`."""
    key_variable: str | None = None
    """The environment variable that holds the key."""


class FunctionTarget(Strict):
    """Answers or predicts by a Python function of the operator's."""

    kind: Literal["function"]
    call: Annotated[str, StringConstraints(pattern=r"^\w+(\.\w+)+$")]
    """The dotted path: called with the input; returns a text, a prediction, a mapping of the fields
    of an output, or an output; may be async."""
    version: str = ""
    """What it is a version of; part of what makes two runs the same."""


class RecordedTarget(Strict):
    """Outputs that were made before: lines of JSON with `id` and the fields of an output."""

    kind: Literal["recorded"]
    file: Text
    """Beside the suite."""


class ConstantTarget(Strict):
    """The same output for every case: a floor to compare with, and the null of benchmarks."""

    kind: Literal["constant"]
    text: str = ""
    prediction: Any = None
    answerable: bool = True


Target: TypeAlias = Annotated[
    CollectionTarget
    | ModelTarget
    | ClassicalTarget
    | UrlTarget
    | FunctionTarget
    | RecordedTarget
    | ConstantTarget,
    Field(discriminator="kind"),
]
