"""Feature views in memory: the newest version of each, shared by the models that take from it."""

from __future__ import annotations

import logging
import math
import time
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
from infra.errors import InvalidRequest, RagstoneError
from infra.feature_views import JoinedView
from infra.plugins import require
from infra.point_in_time import Index

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)

EXTRA = "classical"
RETRY_SECONDS = 30.0
"""Until a version that could not be read, or had no room, is read again."""


class NoRoom(InvalidRequest):
    """A version does not fit beside the others; once one of them goes, it may."""


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
        self.retry_at = math.inf
        """When it is tried again: the store may have been out of reach, or others may go."""
        self.problem: str | None = None
        """Why it cannot."""

    def stay(self, why: RagstoneError, digest: str | None, *, retry_at: float) -> None:
        """Keep the version that is there: another is not what is needed, or cannot be read."""
        self.refused = digest
        is_final = isinstance(why, InvalidRequest) and not isinstance(why, NoRoom)
        self.retry_at = math.inf if is_final else retry_at
        if why.message != self.problem:
            logger.error("A view stays at %s: %s", self.version.reference, why.message)
        self.problem = why.message


class Views:
    """All views in memory; one that no model takes from any more goes by itself.

    Models that take the same columns of a view in the same way, as versions of one model do, share
    it.
    """

    def __init__(
        self,
        store: Callable[[], ArtifactStore],
        max_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = Lock()
        self._live: WeakValueDictionary[str, LiveView] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def size_bytes(self) -> int:
        return sum(each.version.index.size_bytes for each in list(self._live.values()))

    @property
    def stale(self) -> int:
        """How many are not at the version that they should be at."""
        return sum(each.problem is not None for each in list(self._live.values()))

    def open(self, model: ModelFile, pins: Mapping[str, str] | None = None) -> tuple[LiveView, ...]:
        """Return the views of a model, read unless another model has them; it blocks.

        Where the newest version cannot be joined, the one that the model was trained with is, and
        the log and `problem` say so.

        Args:
            model: whose views are meant.
            pins: by what a view follows, the version to read instead of the newest, for good.

        Raises:
            NotFound: there is no such dataset any more.
            InvalidRequest: neither its newest version nor that of the training is what the model
                was trained with: a column is gone or of another type, or there is no room for it.
            StorageFailed: neither can be read.
        """
        with self._lock:
            return tuple(self._opened(view, model, pins or {}) for view in model.views)

    def refresh(self) -> None:
        """Read what is newer than what is in memory; it blocks.

        What cannot take over is told in the log, and what is there goes on answering.
        """
        for live in list(self._live.values()):
            found: Reference | None = None
            try:
                found = (
                    live.version.reference if live.pin else self._store().find(live.view.followed)
                )
                self._renew(live, found)
            except RagstoneError as error:  # of one view, which the others have nothing to do with
                digest = None if found is None else found.digest
                live.stay(error, digest, retry_at=self._clock() + RETRY_SECONDS)

    def _renew(self, live: LiveView, found: Reference) -> None:
        if found.digest == live.version.reference.digest:
            live.problem = live.refused = None
        elif found.digest != live.refused or self._clock() >= live.retry_at:
            with self._lock:
                live.version = self._read(live.view, live.columns, found, instead_of=live)
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
            live = self._live[key] = self._first(view, columns, pin=pin)
        return live

    def _first(self, view: JoinedView, columns: Sequence[Column], *, pin: str | None) -> LiveView:
        """Return a view at its newest version, or where that cannot be at the one of training."""
        found: Reference | None = None
        try:
            found = self._store().find(pin or view.followed)
            return LiveView(view, columns, self._read(view, columns, found), pin=pin)
        except RagstoneError as error:
            digest = None if found is None else found.digest
            version = None if pin else self._of_training(view, columns, other_than=digest)
            if version is None:
                raise
            live = LiveView(view, columns, version, pin=None)
            live.stay(error, digest, retry_at=self._clock() + RETRY_SECONDS)
            return live

    def _of_training(
        self, view: JoinedView, columns: Sequence[Column], *, other_than: str | None
    ) -> Version | None:
        try:
            found = self._store().find(view.version)
            return None if found.digest == other_than else self._read(view, columns, found)
        except RagstoneError as error:
            logger.warning("Nor can %s be joined: %s", view.version, error.message)
            return None

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
            raise NoRoom(
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
