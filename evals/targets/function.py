"""A Python function of the operator's, sync or async, that answers a question or predicts."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from anyio import to_thread

from evals.refusals import is_silent
from evals.target_kinds import FunctionTarget
from evals.trial import Case, Output
from infra.errors import InvalidRequest
from infra.plugins import load

_FIELDS = {field.name for field in fields(Output)}


class Function:
    parents: Sequence[tuple[str, str]] = ()

    def __init__(self, call: Callable[[Any], Any], kind: FunctionTarget) -> None:
        self._call = call
        self._place = kind.call
        self.identity: Mapping[str, Any] = {**kind.model_dump(), "code": _code(call)}

    async def __call__(self, case: Case, *, seed: int) -> Output:
        del seed
        if inspect.iscoroutinefunction(self._call):
            said = await self._call(case.input)
        else:
            said = await to_thread.run_sync(self._call, case.input)
        return as_output(said, case, place=self._place)

    async def close(self) -> None:
        pass


def build(kind: FunctionTarget, folder: Path) -> Function:
    del folder
    return Function(load("evals.targets", kind.call), kind)


def as_output(said: Any, case: Case, *, place: str) -> Output:
    """Return what was answered as an output: a text, fields of an output, or a prediction.

    What is said of features is a prediction, also a label that is a text. An empty text is a
    refusal, as SQuAD 2.0 has it.

    Raises:
        InvalidRequest: fields of an output with values that they cannot have.
    """
    if isinstance(said, Output):
        return said
    if isinstance(said, str):
        if isinstance(case.input, Mapping):
            return Output(prediction=str(said))  # NumPy's own texts are no JSON
        return Output(said, answerable=bool(said.strip()))
    if isinstance(said, Mapping) and said and set(said) <= _FIELDS:
        return from_fields(said, place=place)
    return Output(prediction=said.item() if hasattr(said, "item") else said)


def from_fields(fields: Mapping[str, Any], *, place: str) -> Output:
    """Return the output with these fields; without text and prediction it is a refusal.

    Raises:
        InvalidRequest: there is no such field, or a value that it cannot have.
    """
    try:
        made = Output.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{place} gave no output: {error}") from None
    return replace(made, answerable=False) if is_silent(made) else made


def _code(call: Callable[..., Any]) -> str | None:
    """Return the digest of the file that the function is written in."""
    try:
        path = inspect.getsourcefile(call)
    except TypeError:
        return None
    if path is None or not Path(path).is_file():
        return None
    return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
