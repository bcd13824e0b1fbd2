"""Joins the columns that a model takes from views to the rows of a request, as training does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import Column, ModelFile
from infra.classical_rows import Values, encode
from infra.errors import InvalidRequest
from infra.feature_views import FeatureView
from infra.point_in_time import Found, Moments, Why, count, moments_of, shown, text_at
from service.prediction.views import LiveView, Version

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """What rows get from views."""

    columns: Mapping[str, NDArray[Any]]
    """As a runtime takes them."""
    missed: Sequence[tuple[int, str, Why]]
    """Rows without values of a view, by the column of its key, and why."""
    versions: Mapping[str, str]
    """By view, what was read."""
    keys: Mapping[str, Sequence[Any]]
    """By its name in rows, the key of each row."""
    time: str
    """The column of times."""
    moments: Moments
    """As of which rows were joined, each with one; zoned or not, as the views are."""

    def given(self, row: int) -> dict[str, Any]:
        """Return the keys and the time of a row, as a later training joins by them."""
        moment = self.moments.microseconds[row]
        assert moment is not None
        told = {name: values[row] for name, values in self.keys.items()}
        return {**told, self.time: text_at(moment, is_zoned=bool(self.moments.is_zoned))}


class Joins:
    """The views of one model."""

    def __init__(
        self,
        model: ModelFile,
        views: Sequence[LiveView],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take a model that has views, the same in memory, and the clock of rows without a time."""
        self.views = views
        self._columns = [
            [each for each in model.inputs if each.name in set(live.view.features)]
            for live in views
        ]
        self.time = str(model.time)
        """The column of times."""
        self._clock = clock
        keys = {each.view.asked_key: each.view.key_type for each in views}
        self.asked = (
            *(Column(name=name, type=kind, nullable=True) for name, kind in keys.items()),
            Column(name=self.time, type="string", nullable=True),
        )
        """Columns that a row has for the join alone; of them the time may be left out."""
        self.optional = frozenset({self.time})

    @property
    def problem(self) -> str | None:
        """Why a view is not the newest, if one is not."""
        return next((each.problem for each in self.views if each.problem), None)

    def divided(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], Any]:
        """Return the model's own columns of each row, and the columns for the join.

        Raises:
            InvalidRequest: a row lacks a key, or gives what comes from a view.
        """
        given: dict[str, list[Any]] = {each.name: [] for each in self.asked}
        own: list[dict[str, Any]] = []
        for place, row in enumerate(rows):
            for live in self.views:
                _check_row(place, row, live)
            own.append({name: value for name, value in row.items() if name not in given})
            for name, values in given.items():
                values.append(row.get(name))
        return own, given

    def run(self, rows: int, given: Mapping[str, Any]) -> Joined:
        """Join; a row without a time is of this moment.

        Raises:
            InvalidRequest: a key or a time is none, or a row without values needs some.
        """
        from training.tabular.columns import raw

        moments = self._moments(rows, given.get(self.time))
        columns: dict[str, NDArray[Any]] = {}
        missed: list[tuple[int, str, Why]] = []
        versions: dict[str, str] = {}
        asked: dict[str, Sequence[Any]] = {}
        for live, mine in zip(self.views, self._columns, strict=True):
            view, version = live.view, live.version
            keys = _listed(given[view.asked_key])
            found = version.index.find(keys, moments)
            if found.missed and view.required:
                raise _required(version, view, keys, found)
            frame = version.index.features(found)
            columns |= {each.name: encode(raw(frame[each.name], each), each) for each in mine}
            missed += [(row, view.asked_key, why) for row, why in found.missed]
            versions[view.followed] = str(version.reference)
            asked[view.asked_key] = keys
        if moments.is_zoned is None:  # no row has a time, and each is of this moment
            is_zoned = any(live.version.index.is_zoned for live in self.views)
            moments = Moments(moments.microseconds, is_zoned)
        return Joined(columns, missed, versions, asked, self.time, moments)

    def _moments(self, rows: int, given: Values | pl.Series | None) -> Moments:
        now = count(self._clock())
        if given is None:
            return Moments([now] * rows, None)
        values = given.tolist() if isinstance(given, np.ndarray) else given
        found = moments_of(values, source=f"The column {self.time!r}")
        filled = [now if each is None else each for each in found.microseconds]
        return Moments(filled, found.is_zoned)


def _required(
    version: Version, view: FeatureView, keys: Sequence[Any], found: Found
) -> InvalidRequest:
    row, why = found.missed[0]
    key = shown(keys[row])
    return InvalidRequest(
        f"Row {row}: {version.reference} has no values of {view.asked_key} {key} as of its time "
        f"({why})",
        parameter=view.asked_key,
    )


def _check_row(place: int, row: Mapping[str, Any], live: LiveView) -> None:
    view = live.view
    if view.asked_key not in row:
        raise InvalidRequest(
            f"Row {place} lacks {view.asked_key!r}, the key by which {view.followed} is joined",
            parameter=view.asked_key,
        )
    given = [name for name in view.features if name in row]
    if given:
        raise InvalidRequest(
            f"Row {place} has {given[0]!r}, which the model takes from {view.followed}",
            parameter=given[0],
        )


def _listed(values: Values) -> Sequence[Any]:
    if isinstance(values, np.ndarray):
        found: list[Any] = values.tolist()
        return found
    return values if isinstance(values, list) else list(values)
