"""A stored version of a classical model that can be asked of raw rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra import classical
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.classical import ModelFile
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound, first_line
from infra.plugins import require
from infra.point_in_time import moments_of
from training.tabular import artifact, columns, exporting, fitting, joining, scoring
from training.tabular.open_views import OpenViews

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A version."""

    reference: Reference
    file: ModelFile
    pipeline: Any
    held_out: pl.DataFrame
    """Raw rows that it was measured on, with their labels."""
    views: OpenViews
    """What it takes from other tables."""

    def others(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are none of those it was measured on.

        Rows are the same if all that both sides tell of them is: raw columns, the target, and of a
        model with views key and time as well, since rows of other moments have other features.
        """
        given = [*(each.name for each in self.file.inputs), self.file.target]
        names = [
            name
            for name in (*given, *self.file.asked_for_views)
            if name in rows.columns and name in self.held_out.columns
        ]
        held = self._comparable(self.held_out.select(names))
        own = self._comparable(rows.select(names))
        held = held.cast(dict(own.schema), strict=False)  # type: ignore[arg-type]
        places = own.with_row_index("").join(
            held, on=names, how="anti", nulls_equal=True, maintain_order="left"
        )
        return rows[places[""]]

    def _comparable(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the time as a number: it may be text on one side."""
        time = self.file.time
        if time is None or time not in rows.columns:
            return rows
        polars = require("polars", extra="classical")
        moments = moments_of(rows[time], source=f"The rows' {time!r}").microseconds
        return rows.with_columns(polars.Series(time, moments, dtype=polars.Int64))

    def losses(self, rows: pl.DataFrame) -> NDArray[np.float64]:
        """Return the loss of each row; a class that it does not know is one it gets wrong.

        A column that there was not yet is missing. Views are joined to rows that lack them.

        Raises:
            NotFound: there is no such view any more.
            InvalidRequest: a value is none that the column can hold, or a view cannot be joined.
        """
        if self.file.views:
            rows = joining.join_for(self.file, rows, self.views)
        # What was never missing in training may be now, and is asked all the same.
        given = [each.model_copy(update={"nullable": True}) for each in self.file.inputs]
        rows = _with_all(rows, [each.name for each in given])
        said = fitting.ask(self.pipeline, columns.encoded(rows, given), self.file.classes)
        truth = rows[self.file.target]
        if self.file.classes is None:
            amounts = np.asarray(truth.to_numpy(), dtype=np.float64)
            return scoring.losses("regression", amounts, said)
        codes = {label: code for code, label in enumerate(self.file.classes)}
        known = np.array([codes.get(each, -1) for each in columns.labels(truth)])
        return scoring.losses("classification", known, classical.decide(said, self.file))


def open_model(
    store: ArtifactStore, reference: str, place: Path, *, views: OpenViews | None = None
) -> Opened:
    """Lay a version out in a folder that does not exist, and read it.

    Args:
        store: holds it.
        reference: of it.
        place: the folder.
        views: that are open already; by default they are read when they are needed.

    Raises:
        NotFound: there is no such version, it is no classical model, or it lacks the pipeline or
            the rows that it was measured on.
        InvalidRequest: it is of a later release, damaged, or holds types that are not reviewed.
    """
    found = store.find(reference)
    folder = store.checkout(found.pinned, place)
    file = classical.read(folder)
    return Opened(
        found,
        file,
        exporting.from_skops(folder / exporting.SKOPS, file.trusted),
        _held_out(folder / artifact.REFERENCE),
        views or OpenViews(folder=place, datasets=Datasets(store)),
    )


def _held_out(path: Path) -> pl.DataFrame:
    polars = require("polars", extra="classical")
    if not path.is_file():
        raise NotFound("file", path.name)
    try:
        found: pl.DataFrame = polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        raise InvalidRequest(f"{path.name!r} cannot be read: {first_line(error)}") from error
    return found


def _with_all(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    polars = require("polars", extra="classical")
    absent = [name for name in names if name not in rows.columns]
    return rows.with_columns(polars.lit(None).alias(name) for name in absent)
