"""What a suite may say of texts and of chat rows: one strict model for each rule."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from infra.expectations.recognizers import KINDS
from infra.expectations.rules import RowRule
from infra.expectations.scalars import ColumnName, ColumnNames, Count, Share, check_bounds

LanguageCode: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
Role: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Length(RowRule):
    """A text is so long; an empty one counts, a missing one is passed over."""

    rule: Literal["length"]
    column: ColumnName
    unit: Literal["characters", "words"] = "characters"
    min: Count | None = None
    max: Count | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        check_bounds(self.min, self.max)
        return self


class Language(RowRule):
    """A text is in one of these languages; one too short to tell is passed over."""

    rule: Literal["language"]
    column: ColumnName
    languages: Annotated[tuple[LanguageCode, ...], Field(min_length=1)]
    """Codes of ISO 639-1, such as `en`."""
    min_characters: Count = 20
    """Shorter texts are passed over."""
    min_confidence: Share = 0.5
    """Of the model; a text it is less sure of is passed over."""


class Duplicates(RowRule):
    """No text stands twice; case and white space make no difference. The first one is no failure.

    With `similarity` near duplicates count too: texts that share at least that part of their
    three-word pieces (Jaccard), found by MinHash.
    """

    rule: Literal["duplicates"]
    column: ColumnName
    similarity: Annotated[float, Field(ge=0.5, lt=1)] | None = None


class Pii(RowRule):
    """No text holds what identifies or endangers a person."""

    rule: Literal["pii"]
    columns: ColumnNames
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] = KINDS
    """What is looked for: `email`, `phone`, `card`, `iban`, `ip`, `mac`, `ssn`, `secret`."""

    @model_validator(mode="after")
    def _kinds_exist(self) -> Self:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")
        return self


class Chat(RowRule):
    """A row is a conversation that a model can be trained on.

    The column holds a list of messages, or its JSON text. At most one system message opens it, the
    user speaks first, user and assistant take turns, tool messages answer calls of the assistant,
    no message is empty, and the assistant has the last word.
    """

    rule: Literal["chat"]
    column: ColumnName = "messages"
    role_field: Role = "role"
    content_field: Role = "content"
    system: Role = "system"
    user: Role = "user"
    assistant: Role = "assistant"
    tool: Role = "tool"
    """Role of a tool's answer."""
    call: Role | None = None
    """Role of messages that are a tool call as JSON text, where calls are messages of their own."""
    last: Literal["assistant", "user", "any"] = "assistant"
    """Who speaks last."""
    alternate: bool = True
    """User and assistant take turns."""
    min_messages: Count = 2
    max_messages: Count | None = None
