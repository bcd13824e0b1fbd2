"""Feature views in memory: the newest version of each, shared by the models that take from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.classical import Column, ModelFile
from infra.classical_rows import encode, is_text
from infra.datasets.datasets import Datasets
from infra.errors import InvalidRequest, NotFound
from infra.feature_views import JoinedView
from infra.plugins import require
from infra.point_in_time import Index

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)

EXTRA = "classical"


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version of a view in memory."""

    reference: Reference
    index: Index


class LiveView:
    """A view that requests are answered from; its version is replaced as a whole."""

    def __init__(
        self, view: JoinedView, columns: Sequence[Column], version: Version, *, pin: str | None
    ) -> None:
        self.view = view
        self.columns = columns
        """Of a model that takes from it."""
        self.version = version
        self.pin = pin
        """What is read instead of the newest version."""
        self.refused: str | None = None
        """The digest of a newer version that cannot take over."""
        self.problem: str | None = None
        """Why it cannot."""


class Views:
    """All views in memory; one that no model takes from any more goes by itself.

    Models that take the same columns of a view in the same way, as versions of one model do, share
    it.
    """

    def __init__(self, store: Callable[[], ArtifactStore], max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._live: WeakValueDictionary[str, LiveView] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def size_bytes(self) -> int:
        return sum(each.version.index.size_bytes for each in list(self._live.values()))

    def open(self, model: ModelFile, pins: Mapping[str, str] | None = None) -> tuple[LiveView, ...]:
        """Return the views of a model, read unless another model has them; it blocks.

        Args:
            model: whose views are meant.
            pins: by what a view follows, the version to read instead of the newest, for good.

        Raises:
            NotFound: there is no such dataset any more.
            InvalidRequest: its newest version is not what the model was trained with: a column is
                gone or of another type, or there is no room for it.
        """
        with self._lock:
            return tuple(self._opened(view, model, pins or {}) for view in model.views)

    def refresh(self) -> None:
        """Read what is newer than what is in memory; it blocks.

        What cannot take over is told in the log, and what is there goes on answering.
        """
        for live in list(self._live.values()):
            try:
                self._renew(live)
            except (InvalidRequest, NotFound) as error:
                if error.message != live.problem:
                    logger.error("A view stays at %s: %s", live.version.reference, error.message)
                live.problem = error.message

    def _renew(self, live: LiveView) -> None:
        found = live.version.reference if live.pin else self._store().find(live.view.followed)
        if found.digest == live.version.reference.digest:
            live.problem = live.refused = None
        elif found.digest != live.refused:
            try:
                with self._lock:
                    live.version = self._read(live.view, live.columns, found, instead_of=live)
            except (InvalidRequest, NotFound):
                live.refused = found.digest
                raise
            live.problem = live.refused = None
            logger.info("%s is joined from now on", found)

    def _opened(self, view: JoinedView, model: ModelFile, pins: Mapping[str, str]) -> LiveView:
        features = set(view.features)
        columns = [each for each in model.inputs if each.name in features]
        pin = pins.get(view.followed)
        same = view.model_copy(update={"version": "", "rows": view.followed})
        kinds = [f"{each.name} {each.type} {is_text(each)}" for each in columns]
        key = "\n".join([same.model_dump_json(), pin or "", *kinds])
        live = self._live.get(key)
        if live is None:
            found = self._store().find(pin or view.followed)
            live = LiveView(view, columns, self._read(view, columns, found), pin=pin)
            self._live[key] = live
        return live

    def _read(
        self,
        view: JoinedView,
        columns: Sequence[Column],
        found: Reference,
        *,
        instead_of: LiveView | None = None,
    ) -> Version:
        others = [each for each in list(self._live.values()) if each is not instead_of]
        room = self._max_bytes - sum(each.version.index.size_bytes for each in others)
        frame = self._frame(view, found, room)
        index = Index(view, frame, source=str(found))
        _check(view, columns, index, frame)
        self._check_room(found, index.size_bytes, room)
        return Version(found, index)

    def _frame(self, view: JoinedView, found: Reference, room: int) -> pl.DataFrame:
        pa, polars = require("pyarrow", extra=EXTRA), require("polars", extra=EXTRA)
        datasets = Datasets(self._store())
        names = [view.key, view.time, *view.columns]
        known = {each.name for each in datasets.describe(found.pinned).schema}
        gone = [name for name in names if name not in known]
        if gone:
            raise InvalidRequest(
                f"{found} has no column {gone[0]!r}, which the model takes from it; it had one in "
                f"{view.version}"
            )
        batches, size = [], 0
        for batch in datasets.iterate(found.pinned, columns=names):
            size += batch.nbytes
            self._check_room(found, size, room)
            batches.append(batch)
        if not batches:
            raise InvalidRequest(f"{found} has no row")
        frame: pl.DataFrame = polars.from_arrow(pa.Table.from_batches(batches))
        return frame

    def _check_room(self, found: Reference, size: int, room: int) -> None:
        if size > room:
            raise InvalidRequest(
                f"{found} takes {size:,} bytes or more in memory, and of the "
                f"{self._max_bytes:,} of models.view_bytes {max(0, room):,} are left; raise it, or "
                "make the view smaller"
            )


def _check(view: JoinedView, columns: Sequence[Column], index: Index, frame: pl.DataFrame) -> None:
    """Refuse a version that is not what the model was trained with."""
    if index.key_type != view.key_type:
        raise InvalidRequest(
            f"The keys of {index.source} are {index.key_type}, and those of {view.version}, with "
            f"which the model was trained, {view.key_type}"
        )
    if index.is_zoned != view.is_zoned:
        zone = "a time zone" if index.is_zoned else "no time zone"
        raise InvalidRequest(
            f"The times of {index.source} have {zone}, other than those of {view.version}, with "
            "which the model was trained"
        )
    from training.tabular.columns import raw

    names = dict(zip(view.features, view.columns, strict=True))
    for column in columns:
        kind = frame[names[column.name]].dtype
        is_word = str(kind).startswith(("String", "Categorical", "Enum"))
        is_right = {
            "string": is_word,
            "bool": str(kind) == "Boolean",
            "int64": kind.is_integer(),
            "float64": kind.is_numeric(),
        }[column.type]
        if not is_right and str(kind) != "Null":
            wanted = "text" if is_text(column) and column.type == "string" else column.type
            raise InvalidRequest(
                f"{names[column.name]!r} of {index.source} holds {kind}, and the model was trained "
                f"with {wanted}"
            )
        try:
            encode(raw(frame[names[column.name]], column), column)
        except InvalidRequest as error:
            raise InvalidRequest(f"{index.source}: {error.message}") from error
