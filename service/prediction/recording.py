"""Predictions as interactions, one for each row: for drift, feedback and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from numpy.typing import NDArray

from infra import telemetry
from infra.contracts import Interaction
from infra.errors import RagstoneError
from monitoring.prediction_pairs import copy_of
from service.callers import Caller
from service.errors import describe
from service.prediction.cached import Remembered
from service.prediction.columns import Table, row_values
from service.prediction.loading import Loaded

LIVE: Final = "live"
CANARY: Final = "canary"
SHADOW: Final = "shadow"
STORED: Final = "stored"
Kept = Literal["inputs", "predictions", "nothing"]


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What a version of a model says of some rows."""

    id: str
    """Of the request; a row's interaction has it with a dash and the row's number behind."""
    loaded: Loaded
    table: Table
    values: NDArray[Any]
    """Probabilities, (rows, classes), or values of a regression, (rows,)."""
    chosen: NDArray[Any] | None
    """Of each row the class that is chosen, by its place; None of a regression."""
    tag: str = LIVE
    """`live`, `canary`, `shadow`, or the version or alias that was asked for."""
    explanations: Sequence[Mapping[str, Any]] | None = None
    """Of each row, where they were asked for."""
    is_copy: bool = False
    """It is what the other version says of the same rows, which nobody is told."""

    @property
    def model(self) -> str:
        return f"model/{self.loaded.name}"

    @property
    def labels(self) -> NDArray[Any]:
        """What is predicted, (rows,)."""
        if self.chosen is None or self.loaded.labels is None:
            return self.values
        labels: NDArray[Any] = self.loaded.labels[self.chosen]
        return labels

    def row_id(self, row: int) -> str:
        """Return the id of a row's interaction, which feedback and labels name."""
        own = f"{self.id}-{row}"
        return copy_of(own) if self.is_copy else own


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked, when, and by which request."""

    caller: Caller
    at: datetime
    request_id: str | None = field(default_factory=telemetry.request_id.get)


def record(
    predicted: Predicted,
    add: Callable[[Interaction], None],
    *,
    origin: Origin,
    seconds: float,
    kept: Kept,
) -> None:
    """Add an interaction for each row."""
    labels = predicted.labels.tolist()
    for row in range(predicted.table.rows):
        add(
            Interaction(
                id=predicted.row_id(row),
                kind="prediction",
                at=origin.at,
                model=predicted.model,
                outcome="answered",
                status=200,
                request_id=origin.request_id,
                tenant=origin.caller.tenant,
                key_id=origin.caller.key_id,
                upstream=predicted.loaded.served,
                tag=predicted.tag,
                seconds=seconds,
                content=None if kept == "nothing" else _content(predicted, row, labels[row], kept),
            )
        )


def record_stored(
    kept: Remembered,
    id: str,
    add: Callable[[Interaction], None],
    *,
    origin: Origin,
    seconds: float,
    has_content: bool,
) -> None:
    """Add an interaction for each row that was answered from what a job stored.

    Features are not known: where they are kept of all others, nothing is of these, or they would
    be taken for missing.
    """
    reference, _, version = kept.model.rpartition("@")
    for row, said in enumerate(kept.rows):
        add(
            Interaction(
                id=f"{id}-{row}",
                kind="prediction",
                at=origin.at,
                model=reference,
                outcome="answered",
                status=200,
                request_id=origin.request_id,
                tenant=origin.caller.tenant,
                key_id=origin.caller.key_id,
                upstream=f"{reference.partition('/')[2]}@{version}",
                tag=STORED,
                seconds=seconds,
                content={**said, "stored": kept.artifact} if has_content else None,
            )
        )


@dataclass(frozen=True, slots=True)
class Failed:
    """A version that was to answer too, and did not."""

    loaded: Loaded
    tag: str
    error: RagstoneError


def record_failure(
    first: Predicted,
    add: Callable[[Interaction], None],
    *,
    failed: Failed,
    origin: Origin,
) -> None:
    """Add one interaction for all rows that the other version failed on.

    Args:
        first: what the caller was told.
        add: takes it.
        failed: the other version, and why.
        origin: of the request.
    """
    told = describe(failed.error)
    add(
        Interaction(
            id=copy_of(first.row_id(0)),
            kind="prediction",
            at=origin.at,
            model=first.model,
            outcome="failed",
            status=told.status,
            request_id=origin.request_id,
            error=told.code,
            tenant=origin.caller.tenant,
            key_id=origin.caller.key_id,
            upstream=failed.loaded.served,
            tag=failed.tag,
        )
    )


def _content(predicted: Predicted, row: int, label: Any, kept: Kept) -> dict[str, Any]:
    content: dict[str, Any] = {"prediction": label}
    if predicted.chosen is not None:
        content["probability"] = float(predicted.values[row, predicted.chosen[row]])
        content["probabilities"] = dict(
            zip(predicted.loaded.class_names, predicted.values[row].tolist(), strict=True)
        )
    if kept == "inputs":
        content["features"] = row_values(predicted.table, row, predicted.loaded.model.inputs)
        if predicted.table.versions:
            content["views"] = dict(predicted.table.versions)
        if predicted.table.joined is not None:
            content["keys"] = predicted.table.joined.given(row)
    return content
