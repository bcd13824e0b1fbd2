"""Forgets what jobs stored for requests by key: by model, version, key or age, or with time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, select

from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from infra.database.prediction_tables import cached_prediction as answers
from infra.database.prediction_tables import prediction_batch as batches
from infra.errors import InvalidRequest, NotFound
from infra.model_settings import Models as Options
from service.limits import in_thread
from service.prediction.cached import (
    ASKED,
    VALUE,
    CachedPredictions,
    digest_of,
    part_of_key,
    parted,
)
from service.work.rounds import Rounds

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3600.0
"""Between two looks for what is too old."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which stored predictions; what is None or empty does not matter."""

    model: str | None = None
    """Without `model/`."""
    version: int | None = None
    """That made them."""
    key: Mapping[str, str] = field(default_factory=dict)
    """By column, the value as it is written; of all rows, those that have it."""
    until: datetime | None = None
    """Stored before."""
    tenant: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield, as SQL, which batches may hold some."""
        if self.model is not None:
            yield batches.c.model == self.model
        if self.version is not None:
            yield batches.c.made_by.endswith(f"@v{self.version}", autoescape=True)
        if self.until is not None:
            yield batches.c.made_at < self.until
        if self.tenant is not None:
            yield batches.c.tenant == self.tenant


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed of one batch, or would be."""

    model: str
    """The version that said it."""
    artifact: str
    """Where all of its predictions are, these too."""
    tenant: str | None
    at: datetime
    rows: int
    is_whole: bool
    """The batch is gone, and not some of its rows."""

    def as_dict(self) -> dict[str, Any]:
        """Return it by name."""
        return asdict(self)


class Forgetter:
    """Batches in force lose rows or go; one that a job is storing is left to that job."""

    def __init__(
        self,
        database: Database,
        cached: CachedPredictions,
        *,
        artifacts: Callable[[], ArtifactStore],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._cached = cached
        self._artifacts = artifacts
        self._clock = clock

    def forget(self, wanted: Wanted, *, dry_run: bool = False) -> list[Forgotten]:
        """Remove what is wanted, or only count it.

        Raises:
            InvalidRequest: a part of a key is given, and the rows it stands for cannot be read.
        """
        with self._database.read() as connection:
            found = connection.execute(
                select(batches).where(*wanted.conditions(), batches.c.is_live)
            ).all()
        chosen = [(batch, self._digests(batch, wanted.key)) for batch in found]
        done = [self._forget(batch, keys, dry_run=dry_run) for batch, keys in chosen]
        return [each for each in done if each.rows or each.is_whole]

    def expire(self, options: Options) -> int:
        """Remove batches that are older than they may be, or whose artifact is gone.

        Returns how many. Those by which the settings answer no longer are kept no longer either.
        """
        now = self._clock()
        with self._database.read() as connection:
            found = connection.execute(select(batches).where(batches.c.is_live)).all()
        gone = [each.number for each in found if self._is_over(each, options, now)]
        self._cached.remove(batches.c.number.in_(gone))
        return len(gone)

    def _is_over(self, batch: Row[Any], options: Options, now: datetime) -> bool:
        keep = timedelta(days=options.keep_stored_days)
        settings = options.cached.get(batch.model)
        if settings is not None and settings.max_age_seconds is not None:
            keep = min(keep, timedelta(seconds=settings.max_age_seconds))
        return now - batch.made_at > keep or not self._is_there(batch.artifact)

    def _is_there(self, artifact: str) -> bool:
        try:
            return self._artifacts().find(artifact).version is not None
        except NotFound:
            return False

    def _forget(self, batch: Row[Any], keys: set[str] | None, *, dry_run: bool) -> Forgotten:
        number = batch.number
        mine = answers.c.batch_number == number
        rows = 0
        if keys is None:
            with self._database.read() as connection:
                counted = select(func.count()).select_from(answers).where(mine)
                rows = int(connection.execute(counted).scalar_one())
            if not dry_run:
                self._cached.remove(batches.c.number == number)
        for some in parted(keys or (), ASKED):
            which = (mine, answers.c.key.in_(some))
            if dry_run:
                with self._database.read() as connection:
                    counted = select(func.count()).select_from(answers).where(*which)
                    rows += int(connection.execute(counted).scalar_one())
            else:
                with self._database.write() as connection:
                    rows += connection.execute(delete(answers).where(*which)).rowcount
        return Forgotten(
            batch.made_by, batch.artifact, batch.tenant, batch.made_at, rows, keys is None
        )

    def _digests(self, batch: Row[Any], key: Mapping[str, str]) -> set[str] | None:
        """Return the digests of a batch's rows that have a key; None where all of it is meant."""
        if not key:
            return None
        kinds = batch.key
        if not isinstance(kinds, dict):
            return None  # of an earlier release: it answers nobody, and tells nobody's rows apart
        if not key.keys() <= kinds.keys():
            return set()
        meant = {name: readings(value) for name, value in key.items()}
        rows: Iterable[Mapping[str, Any]]
        if key.keys() == kinds.keys():
            rows = (dict(zip(meant, each, strict=True)) for each in product(*meant.values()))
        else:
            rows = self._rows(batch, meant, kinds)
        found = (digest_of(row, kinds) for row in rows)
        return {each for each in found if each is not None}

    def _rows(
        self, batch: Row[Any], meant: Mapping[str, Sequence[Any]], kinds: Mapping[str, str]
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the keys of a batch's rows that have a part of a key, out of its artifact."""
        from infra.datasets.datasets import Datasets

        parts = {
            name: {part_of_key(value, kinds[name]) for value in values} - {None}
            for name, values in meant.items()
        }
        try:
            for rows in Datasets(self._artifacts()).iterate(batch.artifact, columns=list(kinds)):
                for row in rows.to_pylist():
                    if all(part_of_key(row[name], kinds[name]) in parts[name] for name in parts):
                        yield row
        except NotFound:
            raise InvalidRequest(
                f"{batch.artifact} is gone, which would say the rest of the key: give all of "
                f"{', '.join(map(repr, kinds))}, or forget all of what {batch.made_by} said"
            ) from None


def readings(text: str) -> list[Any]:
    """Return what a value may be that is given as text: the text, or the number that it spells."""
    try:
        number = json.loads(text)
    except ValueError:
        return [text]
    return [text, number] if isinstance(number, int | float) else [text]


def holds(row: Mapping[str, Any], key: Mapping[str, str]) -> bool:
    """Return whether a row has a key, given as text."""
    return all(
        part_of_key(row.get(name), VALUE)
        in {part_of_key(one, VALUE) for one in readings(value)} - {None}
        for name, value in key.items()
    )


class Retention:
    """Removes what is too old now and then, as long as the process answers."""

    def __init__(self, forgetter: Callable[[], Forgetter], options: Options) -> None:
        self._forgetter = forgetter
        self._options = options
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look now, and every hour."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Remove what is too old at this moment."""
        gone = await in_thread(lambda: self._forgetter().expire(self._options))
        if gone:
            logger.info("%d batches of stored predictions were too old, or of no artifact", gone)

    async def _watch(self) -> None:
        rounds = Rounds("the stored predictions")
        while True:
            await rounds.attempt(self.look)
            await asyncio.sleep(LOOK_SECONDS)
