"""Feature views that are open for a training: each read once, at the version first found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.artifacts.refs import Reference
from infra.datasets.datasets import KIND, Datasets
from infra.errors import NotFound
from infra.feature_views import FeatureView
from infra.plugins import require
from infra.point_in_time import Index
from training.tabular import reading
from training.tabular.reading import Rows
from training.tabular.specification import TableSource

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, eq=False)
class OpenView:
    """A view in memory."""

    view: FeatureView
    rows: Rows
    index: Index


class OpenViews:
    """What is joined in a training, or in a retraining to all of its models.

    A version that comes meanwhile changes nothing, or models were compared on other values than
    they were trained with.
    """

    def __init__(self, *, folder: Path, datasets: Datasets | None) -> None:
        """Take where paths begin, and the datasets of the store if one is open."""
        self._folder = folder
        self._datasets = datasets
        self._found: dict[str, Reference] = {}
        self._frames: dict[str, pl.DataFrame] = {}
        """By digest, the columns that were asked for so far."""
        self._indexes: dict[str, Index] = {}

    def open(self, views: Iterable[FeatureView]) -> tuple[OpenView, ...]:
        """Return views; of a dataset the columns are read that no view before asked for.

        Raises:
            NotFound: there is no such file, dataset or column.
            InvalidRequest: one is no table of keys and times, or tells two values for one moment.
            InvalidConfiguration: one is a dataset, and there is no store.
        """
        return tuple(self._opened(view) for view in views)

    def _opened(self, view: FeatureView) -> OpenView:
        rows = self._rows(view)
        asked = FeatureView.model_validate(view.model_dump(include=set(FeatureView.model_fields)))
        key = f"{rows.digest} {asked.model_copy(update={'required': False}).model_dump_json()}"
        if key not in self._indexes:
            self._indexes[key] = Index(view, rows.frame, source=rows.name)
        return OpenView(view, rows, self._indexes[key])

    def _rows(self, view: FeatureView) -> Rows:
        datasets = self._datasets
        if datasets is None or not view.rows.startswith(f"{KIND}/"):
            source = TableSource(rows=view.rows)
            return reading.read(source, folder=self._folder, datasets=datasets)
        require("polars", extra=reading.EXTRA)
        if view.rows not in self._found:
            self._found[view.rows] = datasets.find(view.rows)
        found = self._found[view.rows]
        wanted = [view.key, view.time, *view.columns]
        known = datasets.describe(found.pinned).columns
        for name in wanted:
            if name not in known:
                raise NotFound(f"column of {found}", name, among=known)
        frame = self._frames.get(found.digest)
        missing = [name for name in wanted if frame is None or name not in frame.columns]
        if missing:
            read = datasets.frame(found.pinned, columns=missing)
            frame = self._frames[found.digest] = read if frame is None else frame.hstack(read)
        return Rows(self._frames[found.digest], str(found), found.digest, is_stored=True)
