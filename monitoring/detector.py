"""What a drift detector is: parameters that are checked, kinds of columns it reads, a finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.errors import InvalidConfiguration, InvalidRequest
from infra.plugins import load
from monitoring.columns import Column, Kind
from monitoring.findings import Finding, incomparable, not_enough_data
from monitoring.wrong_options import first, model_of

PACKAGE = "monitoring.drift"
Kinds: TypeAlias = frozenset[Kind]
NUMBERS: Kinds = frozenset({"numbers"})
CATEGORIES: Kinds = frozenset({"categories"})
VECTORS: Kinds = frozenset({"vectors"})


class TwoSampleDetector(Protocol):
    """Compares a measurement window with a reference window."""

    reads: ClassVar[Kinds]

    def compare(self, reference: Column, current: Column) -> Finding:
        """Return what differs; windows that cannot be compared are a finding and no error."""
        ...


class Watch(Protocol):
    """A sequential detector on its way along one stream."""

    def update(self, values: Column) -> Finding:
        """Take the next rows in, in the order in which they came, and say how it stands.

        After an alarm the finding stays: start another watch once the cause is known.
        """
        ...


class SequentialDetector(Protocol):
    """Looks at a stream row by row, as often as one likes."""

    reads: ClassVar[Kinds]

    def watch(self, reference: Column) -> Watch | Finding:
        """Return a watch that begins now; a finding where the reference gives no ground for one."""
        ...


Detector: TypeAlias = TwoSampleDetector | SequentialDetector


class Parameters(BaseModel):
    """A detector whose fields are its parameters; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float = Field(0.05, gt=0, lt=1)
    """Probability of a false alarm: of one comparison, or over the whole horizon of a stream."""
    least_rows: int = Field(50, ge=10)
    """Values that both windows need."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """A detector with parameters of its own."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def open_detector(name: str, parameters: Mapping[str, Any] | None = None) -> Detector:
    """Build the detector of plug-in `name`, a file of `monitoring/drift` or a dotted path.

    Raises:
        InvalidRequest: a parameter is unknown or has a wrong value.
        InvalidConfiguration: there is no such detector.
    """
    build = load(PACKAGE, name)
    try:
        built = build(parameters or {})
    except ValidationError as error:
        raise InvalidRequest(f"Detector {name!r}: {first(error, model_of(build))}") from None
    if not (callable(getattr(built, "compare", None)) or is_sequential(built)):
        raise InvalidConfiguration(f"{name!r} is no detector: neither `compare` nor `watch`")
    return cast("Detector", built)


def is_sequential(detector: Detector) -> TypeGuard[SequentialDetector]:
    """Whether it looks at a stream, and not at two windows."""
    return callable(getattr(detector, "watch", None))


def obstacle(
    name: str, reference: Column, current: Column, *, reads: Kinds, least_rows: int
) -> Finding | None:
    """Return why these two cannot be compared by a detector; None if nothing is in the way."""
    for what, column in (("reference", reference), ("window", current)):
        if not len(column):
            return not_enough_data(name, f"The {what} has no rows")
        if column.kind == "nothing":
            rows = f"none of its {len(column)} rows"
            return incomparable(name, f"The {what} has no value: {rows} holds one")
        if column.kind not in reads:
            return incomparable(
                name, f"The {what} holds {column.kind}; this detector reads {' or '.join(reads)}"
            )
    if reference.kind != current.kind:
        return incomparable(
            name, f"The reference holds {reference.kind}, the window {current.kind}"
        )
    if reference.dimension != current.dimension:
        return incomparable(
            name,
            f"The reference has vectors of dimension {reference.dimension}, the window of "
            f"{current.dimension}; embed both with one model",
        )
    if not reference.dimension:
        return incomparable(name, "The reference and the window share nothing to be compared")
    return too_few(name, reference, current, least_rows)


def too_few(name: str, reference: Column, current: Column, least_rows: int) -> Finding | None:
    """Return a finding where one of the two has fewer values than are needed."""
    for what, column in (("reference", reference), ("window", current)):
        present = int((~column.is_missing()).sum())
        if present < least_rows:
            return not_enough_data(
                name, f"The {what} has {present} values of the {least_rows} that are needed"
            )
    return None
