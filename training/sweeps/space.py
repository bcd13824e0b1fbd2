"""What a sweep tries: values of keys of a specification, and the specification with them in it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training.spec import FineTuning, InvalidSpecification, as_json, parse
from training.specification.sweep import Range

UNSWEPT = (
    *("version", "name", "sweep", "evaluate", "register", "compress", "serve"),
    *("parallelism", "runtime"),
)
"""Parts of a specification that are the same in every trial."""
READ = ("data", "base", "method.type")
"""Keys on which the tokens of the rows depend."""
MOST_GRID = 10_000

Values = Mapping[str, Any]
"""By the dotted key."""


def check(spec: FineTuning) -> None:
    """Look whether every value that is listed, and both ends of every range, can stand at its key.

    Raises:
        InvalidRequest: names each key that does not exist or takes no such value.
    """
    assert spec.sweep is not None
    faults: list[str] = []
    for key, choice in spec.sweep.parameters.items():
        ends = _ends(choice) if isinstance(choice, Range) else choice
        found = [_fault(spec, key, value) for value in ends]
        if not isinstance(choice, Range):
            found += _repeated(key, choice)
        faults += dict.fromkeys(fault for fault in found if fault is not None)
    if faults:
        raise InvalidRequest("sweep.parameters: " + "; ".join(faults), parameter="spec")


def with_values(spec: FineTuning, values: Values) -> FineTuning:
    """Return a specification, of one run, with values put at their keys.

    Raises:
        InvalidSpecification: together they are none; names each key that is wrong.
        InvalidRequest: a key is in no section that there is.
    """
    whole = as_json(spec)
    del whole["sweep"]
    for key, value in values.items():
        *parents, last = key.split(".")
        place = whole
        for parent in parents:
            inner = place.get(parent) if isinstance(place, dict) else None
            if not isinstance(inner, dict):
                raise InvalidRequest(f"{key!r}: the specification has no section {parent!r}")
            place = inner
        place[last] = value
    return parse(whole)


def distributions(spec: FineTuning) -> dict[str, Any]:
    """Return what optuna draws from, by key."""
    assert spec.sweep is not None
    return {key: _distribution(choice) for key, choice in spec.sweep.parameters.items()}


def grid(spec: FineTuning) -> list[dict[str, Any]]:
    """Return every combination of values, as optuna knows them.

    Raises:
        InvalidRequest: a range has no step, or there are more trials in it than anybody wants.
    """
    assert spec.sweep is not None
    grid_size(spec)
    found = {key: list(_steps(key, choice)) for key, choice in spec.sweep.parameters.items()}
    return [dict(zip(found, values, strict=True)) for values in itertools.product(*found.values())]


def grid_size(spec: FineTuning) -> int:
    """Return how many combinations of values there are.

    Raises:
        InvalidRequest: a range has no step, or there are more trials in it than anybody wants.
    """
    assert spec.sweep is not None
    size = math.prod(_count(key, choice) for key, choice in spec.sweep.parameters.items())
    if size > MOST_GRID:
        raise InvalidRequest(
            f"sweep.parameters: the grid has {size:,} points, more than {MOST_GRID:,}; list fewer "
            "values, or take the sampler 'tpe'"
        )
    return size


def known_as(value: Any) -> Any:
    """Return what optuna knows a value as: itself, or the text of a list or section."""
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def told_by(spec: FineTuning, drawn: Values) -> dict[str, Any]:
    """Return the values that optuna drew as they stand in a specification."""
    assert spec.sweep is not None
    told = {}
    for key, value in drawn.items():
        choice = spec.sweep.parameters[key]
        if not isinstance(choice, Range):
            value = next(each for each in choice if known_as(each) == value)
        told[key] = value
    return told


def reads_other_rows(spec: FineTuning) -> bool:
    """Whether trials differ in what is read, so that none can go by the plan of another."""
    assert spec.sweep is not None
    return any(
        key == part or key.startswith(f"{part}.") for key in spec.sweep.parameters for part in READ
    )


def _fault(spec: FineTuning, key: str, value: Any) -> str | None:
    if (part := key.partition(".")[0]) in UNSWEPT:
        return f"{key!r} is not swept: {part!r} is the same in every trial"
    try:
        with_values(spec, {key: value})
    except InvalidSpecification as error:
        return f"{key!r} cannot be {value!r}: {'; '.join(error.problems)}"
    except InvalidRequest as error:
        return error.message
    return None


def _distribution(choice: Range | tuple[Any, ...]) -> Any:
    optuna = require("optuna", extra="finetune")
    if not isinstance(choice, Range):
        return optuna.distributions.CategoricalDistribution([known_as(each) for each in choice])
    high = choice.high if choice.step is None else _at(choice, _last(choice, choice.step))
    if choice.whole:
        step = int(choice.step or 1)
        return optuna.distributions.IntDistribution(
            int(choice.low), int(high), log=choice.log, step=step
        )
    return optuna.distributions.FloatDistribution(
        choice.low, high, log=choice.log, step=choice.step
    )


def _count(key: str, choice: Range | tuple[Any, ...]) -> int:
    if not isinstance(choice, Range):
        return len(choice)
    step = choice.step or (1.0 if choice.whole else None)
    if step is None:
        raise InvalidRequest(
            f"sweep.parameters: {key!r} has a range without a step, and a grid needs values; list "
            "them, give a step, or take the sampler 'tpe'"
        )
    return _last(choice, step) + 1


def _steps(key: str, choice: Range | tuple[Any, ...]) -> Iterator[Any]:
    if not isinstance(choice, Range):
        yield from (known_as(each) for each in choice)
        return
    for count in range(_count(key, choice)):
        value = _at(choice, count)
        yield int(value) if choice.whole else value


def _at(choice: Range, count: int) -> float:
    """Return a range's number after some steps: 0.3, where floats come to 0.1 + 2 * 0.1."""
    return float(_exact(choice.low) + count * _exact(choice.step or 1.0))


def _last(choice: Range, step: float) -> int:
    """Return how many steps there are from the low end of a range to the high one."""
    return int((_exact(choice.high) - _exact(choice.low)) / _exact(step))


def _exact(number: float) -> Fraction:
    """Return a number as it is written in decimals."""
    return Fraction(repr(number))


def _repeated(key: str, values: tuple[Any, ...]) -> Iterator[str]:
    """Find values of a list that optuna cannot tell from one another, as it cannot 1 and True."""
    known = [known_as(each) for each in values]
    for at, value in enumerate(values):
        if known[at] in known[:at]:
            yield f"{key!r}: {value!r} cannot be told from a value before it"


def _ends(choice: Range) -> list[Any]:
    ends = [choice.low, choice.high]
    return [int(end) for end in ends] if choice.whole else ends


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
