"""Joins feature views to the rows of a classical model, as of each row's time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infra.classical import Column, ModelFile
from infra.errors import InvalidRequest, NotFound
from infra.feature_views import JoinedView
from infra.point_in_time import Found, key_type, moments_of
from training.tabular.open_views import OpenView, OpenViews
from training.tabular.reading import Rows
from training.tabular.specification import TableData

if TYPE_CHECKING:
    import polars as pl

WORDS = {
    "unknown_key": "have a key that it lacks",
    "too_early": "are earlier than what it knows of their key",
    "too_old": "are later than its ttl_seconds allow",
}


@dataclass(frozen=True, slots=True)
class Joined:
    """How the rows of one view came to the rows of a model."""

    view: str
    rows: int
    missed: dict[str, int]
    """Rows without values, by why: `unknown_key`, `too_early`, `too_old`."""

    def __str__(self) -> str:
        said = [f"{count:,} {WORDS[why]}" for why, count in self.missed.items()]
        return (
            f"{self.view}: {sum(self.missed.values()):,} of {self.rows:,} rows have no values: "
            + "; ".join(said)
        )


def join(
    frame: pl.DataFrame, views: Sequence[OpenView], time: str
) -> tuple[pl.DataFrame, list[Joined]]:
    """Return rows with the columns of views, and how many have no values of each.

    Raises:
        NotFound: the rows lack the time or a key.
        InvalidRequest: keys or times are of other types than the view's, a row has no time, a
            column has the name of one that is joined, or a row without values needs some.
    """
    if not views:
        return frame, []
    if time not in frame.columns:
        raise NotFound("column", time, among=frame.columns)
    moments = moments_of(frame[time], source=f"The rows' {time!r}")
    parts: list[pl.DataFrame] = []
    told: list[Joined] = []
    for each in views:
        _check(frame, each)
        found = each.index.find(frame[each.view.asked_key].to_list(), moments)
        told.append(_told(each, found))
        parts.append(each.index.features(found))
    for part in parts:
        frame = frame.hstack(part)
    return frame, told


def join_all(
    sides: Sequence[Rows | None], views: Sequence[OpenView], data: TableData
) -> tuple[list[Rows | None], list[Joined]]:
    """Join the rows of each side, as `join` does."""
    joined: list[Rows | None] = []
    told: list[Joined] = []
    for rows in sides:
        if rows is None or not views:
            joined.append(rows)
            continue
        frame, said = join(rows.frame, views, str(data.time))
        joined.append(replace(rows, frame=frame))
        told += said
    return joined, told


def remembered(views: Sequence[OpenView], inputs: Sequence[Column]) -> tuple[JoinedView, ...]:
    """Return what a model keeps of views: of those alone that it is given a column of."""
    given = {each.name for each in inputs}
    found = []
    for each in views:
        view = each.view
        pairs = zip(view.columns, view.features, strict=True)
        columns = tuple(column for column, name in pairs if name in given)
        if columns:
            values: dict[str, Any] = {
                **view.model_dump(),
                "columns": columns,
                "version": each.rows.name,
                "key_type": each.index.key_type,
                "is_zoned": each.index.is_zoned,
            }
            found.append(JoinedView.model_validate(values))
    return tuple(found)


def join_for(model: ModelFile, frame: pl.DataFrame, views: OpenViews) -> pl.DataFrame:
    """Join what a stored model takes from views, as they are now, to rows that lack it.

    A view whose key or time the rows lack is left out.

    Raises:
        NotFound, InvalidRequest: as `OpenViews.open` and `join` do.
    """
    names = set(frame.columns)
    wanted = []
    for view in model.views:
        pairs = zip(view.columns, view.features, strict=True)
        lacking = tuple(column for column, name in pairs if name not in names)
        if lacking and {view.asked_key, model.time} <= names:
            given = {"rows": view.followed, "required": False, "columns": lacking}
            wanted.append(view.model_copy(update=given))
    return join(frame, views.open(wanted), str(model.time))[0]


def _check(frame: pl.DataFrame, opened: OpenView) -> None:
    view = opened.view
    if view.asked_key not in frame.columns:
        raise NotFound("column", view.asked_key, among=frame.columns)
    mine = key_type(frame[view.asked_key], "The rows")
    if mine != opened.index.key_type:
        raise InvalidRequest(
            f"The keys of {opened.rows.name} are {opened.index.key_type}, and those of the rows in "
            f"{view.asked_key!r} are {mine}; nothing would be joined"
        )
    taken = [name for name in view.features if name in frame.columns]
    if taken:
        raise InvalidRequest(
            f"{taken[0]!r} of {opened.rows.name} is the name of another column of the rows; "
            "give the view a prefix"
        )


def _told(opened: OpenView, found: Found) -> Joined:
    missed = Counter(why for _, why in found.missed)
    told = Joined(opened.rows.name, len(found.places), dict(sorted(missed.items())))
    if opened.view.required and found.missed:
        raise InvalidRequest(f"{told}; the view is required, so that nothing was joined")
    return told
