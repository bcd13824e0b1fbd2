"""Predictions as interactions, one for each row: for drift, feedback and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from numpy.typing import NDArray

from infra import telemetry
from infra.contracts import Interaction
from service.callers import Caller
from service.prediction.columns import Table, row_values
from service.prediction.loading import Loaded

LIVE = "live"
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
    """`live`, or the version or alias that was asked for."""
    explanations: Sequence[Mapping[str, Any]] | None = None
    """Of each row, where they were asked for."""

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
        return f"{self.id}-{row}"


def record(
    predicted: Predicted,
    add: Callable[[Interaction], None],
    *,
    caller: Caller,
    at: datetime,
    seconds: float,
    kept: Kept,
) -> None:
    """Add an interaction for each row."""
    labels = predicted.labels.tolist()
    loaded, request_id = predicted.loaded, telemetry.request_id.get()
    for row in range(predicted.table.rows):
        add(
            Interaction(
                id=predicted.row_id(row),
                kind="prediction",
                at=at,
                model=predicted.model,
                outcome="answered",
                status=200,
                request_id=request_id,
                tenant=caller.tenant,
                key_id=caller.key_id,
                upstream=loaded.served,
                tag=predicted.tag,
                seconds=seconds,
                content=None if kept == "nothing" else _content(predicted, row, labels[row], kept),
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
    return content
