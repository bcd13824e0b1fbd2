"""A run while it runs: what the code that is tracked calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from sqlalchemy import Connection, delete, func, insert, select, update

from infra.artifacts.refs import check_role
from infra.database.engine import Database
from infra.errors import Conflict, InvalidRequest, NotFound, StorageFailed, TooLarge
from infra.tracking.feed import Feed, Flusher
from infra.tracking.limits import (
    MAX_REASON_CHARACTERS,
    MAX_TAGS,
    check_digest,
    check_key,
    cut,
    storable,
)
from infra.tracking.parameters import Parameters, decode, encode, flatten, plain
from infra.tracking.redaction import hide
from infra.tracking.tables import run, run_artifact, run_tag
from infra.tracking.writing import Ending, database_now

logger = logging.getLogger(__name__)

END_SECONDS = 30.0
"""How long the end of a run tries to write what is left while the database cannot be reached."""
RETRY_SECONDS = 0.5


class Artifact(Protocol):
    """What an artifact store's reference says: text such as `dataset/faq@v3`, and a digest."""

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs of the tracker that started it."""

    database: Database
    flusher: Flusher
    find: Callable[[str], Artifact] | None = None
    """Looks a reference up in the artifact store."""
    settle: Callable[[str], None] = lambda _: None
    """Gives the mirrors a moment, once a run has ended."""
    clock: Callable[[], float] = time.time


class Run:
    """One run; `with` ends it: `finished`, or `failed` with the error, or `killed`."""

    def __init__(self, run_id: str, feed: Feed, around: Surroundings, *, is_owner: bool) -> None:
        self.id = run_id
        self._feed = feed
        self._buffer = feed.buffer
        self._around = around
        self._is_owner = is_owner
        self._is_over = False
        around.flusher.add(feed)

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record a number for each metric; returns at once, another thread writes.

        Args:
            metrics: numbers by name, such as `{"train/loss": 0.3}`; NaN and infinity are kept.
            step: by default one more than the metric's last.

        Raises:
            InvalidRequest: a name, a value or the step is none; or the run is over.
            TooLarge: the run has too many metrics.
        """
        if self._is_over:
            raise InvalidRequest(f"Run {self.id!r} is over; log before its block ends")
        self._buffer.add(metrics, step=step, at=self._around.clock())
        if self._buffer.is_half_full:
            self._around.flusher.wake()

    def tag(self, tags: Mapping[str, str | int | float | bool]) -> None:
        """Set tags, in place of those with the same keys; durable when it returns."""
        values = check_tags(tags)
        with self._around.database.write() as connection:
            self._hold(connection)
            mine = run_tag.c.run_id == self.id
            connection.execute(delete(run_tag).where(mine, run_tag.c.key.in_(list(values))))
            insert_tags(connection, self.id, values)
            count = connection.scalar(select(func.count()).select_from(run_tag).where(mine))
            if count is not None and count > MAX_TAGS:
                raise TooLarge(f"More than {MAX_TAGS} tags on run {self.id!r}; use parameters")

    def add_parameters(self, parameters: Parameters) -> None:
        """Record parameters that became known after the start; durable when it returns.

        Raises:
            Conflict: one of them has another value already.
        """
        added = flatten(plain(parameters))
        with self._around.database.write() as connection:
            known = decode(self._hold(connection))
            before = flatten(known)
            for name in added.keys() & before.keys():
                if encode(added[name]) != encode(before[name]):
                    raise Conflict(
                        f"Parameter {name!r} is {before[name]!r} already, not {added[name]!r}; "
                        "log what changes during a run as a metric"
                    )
            merged = plain({**known, **{k: v for k, v in added.items() if k not in before}})
            connection.execute(
                update(run).where(run.c.id == self.id).values(parameters=encode(merged))
            )

    def use(
        self, reference: Artifact | str, *, role: str = "input", digest: str | None = None
    ) -> None:
        """Record that the run reads an artifact.

        Args:
            reference: of an artifact store, or its text, which is looked up.
            role: what it is used as, such as `train`, `base` or `eval`.
            digest: of what the text names, where no artifact store knows it.

        Raises:
            NotFound: the artifact store does not know the text.
        """
        self._link("used", reference, role=role, digest=digest)

    def made(
        self, reference: Artifact | str, *, role: str = "output", digest: str | None = None
    ) -> None:
        """Record that the run wrote an artifact; as `use`."""
        self._link("made", reference, role=role, digest=digest)

    def flush(self) -> None:
        """Write what was logged so far; durable when it returns.

        Raises:
            StorageFailed: not now; it stays in the buffer.
        """
        self._feed.drain()

    def end(self, state: str = "finished", reason: str | None = None) -> None:
        """End the run: write what is left, and how it ended. Ending it twice changes nothing.

        Raises:
            StorageFailed: the database could not be reached for `END_SECONDS`.
        """
        if self._is_over:
            return
        self._is_over = True
        reason = None if reason is None else cut(storable(hide(reason)), MAX_REASON_CHARACTERS)
        try:
            self._drain(Ending(state, reason) if self._is_owner else None)
        finally:
            self._around.flusher.remove(self._feed)
        if self._is_owner:
            self._around.settle(self.id)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state, reason = _how_it_ended(error)
        try:
            self.end(state, reason)
        except StorageFailed as failure:
            if error is None:
                raise
            logger.error("the end of run %s could not be written: %s", self.id, failure.message)

    def _drain(self, ending: Ending | None) -> None:
        deadline = time.monotonic() + END_SECONDS
        while True:
            try:
                self._feed.drain(ending)
                return
            except StorageFailed:
                if time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_SECONDS)

    def _link(
        self, direction: str, reference: Artifact | str, *, role: str, digest: str | None
    ) -> None:
        check_role(role)
        if digest is None and isinstance(reference, str):
            if self._around.find is None:
                raise InvalidRequest(
                    f"No artifact store is at hand to look {reference!r} up in; give its digest",
                    parameter="digest",
                )
            reference = self._around.find(reference)
        found = getattr(reference, "digest", None) if digest is None else digest
        row = {
            "run_id": self.id,
            "direction": direction,
            "role": role,
            "reference": cut(storable(hide(str(reference))), 512),
            "digest": check_digest(found),
        }
        with self._around.database.write() as connection:
            self._hold(connection)
            known = select(run_artifact.c.id).where(
                *(run_artifact.c[name] == value for name, value in row.items())
            )
            if connection.scalar(known.limit(1)) is None:
                now = database_now(connection, self._around.database)
                connection.execute(insert(run_artifact).values(at=now, **row))

    def _hold(self, connection: Connection) -> str:
        """Let nobody else change the run until commit; returns its parameters."""
        parameters: str | None = connection.scalar(
            select(run.c.parameters).where(run.c.id == self.id).with_for_update()
        )
        if parameters is None:
            raise NotFound("run", self.id)
        return parameters


def check_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as they are stored: keys of the form of a metric's name, values bounded.

    Raises:
        InvalidRequest: a key is malformed.
        TooLarge: there are too many.
    """
    if len(tags) > MAX_TAGS:
        raise TooLarge(f"{len(tags)} tags, at most {MAX_TAGS}; use parameters")
    return {
        check_key(key, what="tag"): cut(storable(hide(str(value)))) for key, value in tags.items()
    }


def insert_tags(connection: Connection, run_id: str, tags: Mapping[str, str]) -> None:
    if tags:
        rows = [{"run_id": run_id, "key": key, "value": value} for key, value in tags.items()]
        connection.execute(insert(run_tag), rows)


def _how_it_ended(error: BaseException | None) -> tuple[str, str | None]:
    if error is None:
        return "finished", None
    if isinstance(error, SystemExit):
        is_well = error.code in (None, 0)
        return ("finished", None) if is_well else ("failed", f"exit: {error.code}")
    if isinstance(error, KeyboardInterrupt):
        return "killed", "interrupted"
    return "failed", f"{type(error).__name__}: {error}"
