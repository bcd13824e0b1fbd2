"""What is wrong with a plug-in's options, in one line, with those that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from infra.errors import InvalidConfiguration

Model = TypeVar("Model", bound=BaseModel)


def checked_options(model: type[Model], options: Mapping[str, object], *, what: str) -> Model:
    """Return options as their model has them.

    Raises:
        InvalidConfiguration: one is unknown, missing or wrong.
    """
    try:
        return model.model_validate(options)
    except ValidationError as error:
        raise InvalidConfiguration(f"{what}: {first(error, model)}") from None


def first(error: ValidationError, model: type[BaseModel] | None) -> str:
    """Return the first thing that is wrong; no text that was given, which may be a secret.

    Nor a number where a text is asked for: it may be a password of digits.

    >>> class Options(BaseModel, extra="forbid"):
    ...     url: str
    ...     port: int = 25
    >>> try:
    ...     Options.model_validate({"url": "http://localhost", "prot": 2525})
    ... except ValidationError as error:
    ...     first(error, Options)
    "no option 'prot'; there are port, url"
    """
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden" and model is not None and len(found["loc"]) == 1:
        return f"no option {where!r}; there are {', '.join(sorted(model.model_fields))}"
    is_number = isinstance(found["input"], int | float) and found["type"] != "string_type"
    value = f", not {found['input']!r}" if is_number else ""
    return f"{where}: {found['msg']}{value}" if where else str(found["msg"])


def model_of(build: Callable[..., Any]) -> type[BaseModel] | None:
    """Return the model whose `model_validate` a plug-in is built by; None if it is another way."""
    model = getattr(build, "__self__", None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None
