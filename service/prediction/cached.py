"""Predictions that a job stored, from which requests are answered by key, out of the database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from infra.database.engine import Database
from infra.database.prediction_tables import cached_prediction as answers
from infra.database.prediction_tables import prediction_batch as batches
from infra.errors import InvalidRequest, NotFound
from infra.model_settings import Cached
from infra.point_in_time import moments_of, shown
from service.prediction.loading import Loaded

WRITTEN = 1_000
"""Rows of one transaction: others write meanwhile."""
ASKED = 500
"""Keys of one question to the database."""
VALUE, TIME, ZONED_TIME = "value", "time", "time with a zone"
"""What a column of a key holds."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a job said of the rows of a request."""

    model: str
    """The version that said it."""
    artifact: str
    """Where all of its predictions are."""
    at: datetime
    rows: Sequence[Mapping[str, Any]]
    """`prediction`, and of a classifier `probabilities` by class."""


class CachedPredictions:
    """A batch takes over as a whole; each answers its own tenant alone."""

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._clock = clock

    def fill(
        self,
        loaded: Loaded,
        settings: Cached,
        rows: Iterable[Mapping[str, Any]],
        *,
        job: str,
        tenant: str | None,
    ) -> int:
        """Store a batch that answers nothing yet; what an earlier attempt stored is replaced.

        Args:
            loaded: the version that made the predictions.
            settings: of it.
            rows: of the job's result.
            job: that stores them.
            tenant: whose job it is.

        Raises:
            InvalidRequest: a row has no key, or two have the same.
        """
        rows = iter(rows)
        some = list(islice(rows, 1))
        key = {name: _kind(row.get(name)) for row in some for name in settings.key}
        self.remove(batches.c.job == job, ~batches.c.is_live)
        values = {
            "model": loaded.name,
            "tenant": tenant,
            "job": job,
            "made_by": str(loaded.reference),
            "digest": loaded.reference.digest,
            "key": key,
            "made_at": self._clock(),
            "is_live": False,
        }
        with self._database.write() as connection:
            made = connection.execute(insert(batches).values(values).returning(batches.c.number))
            number = int(made.scalar_one())
        for part in parted(chain(some, rows), WRITTEN):
            stored = [
                {
                    "batch_number": number,
                    "key": _require_key(row, key),
                    "answer": _answer(row, loaded),
                }
                for row in part
            ]
            try:
                with self._database.write(durable=False) as connection:
                    connection.execute(insert(answers), stored)
            except IntegrityError:
                raise InvalidRequest(
                    f"Two rows have the same {', '.join(map(repr, settings.key))}, the key of "
                    f"models.cached.{loaded.name}; which of them is meant is not said"
                ) from None
        return number

    def go_live(self, number: int, artifact: str) -> None:
        """Have a batch answer from now on, and remove the one before it."""
        with self._database.write() as connection:
            row = connection.execute(select(batches).where(batches.c.number == number)).one()
            mine = _of(row.model, row.tenant)
            before = connection.scalars(
                select(batches.c.number).where(*mine, batches.c.is_live)
            ).all()
            connection.execute(update(batches).where(*mine).values(is_live=False))
            connection.execute(
                update(batches)
                .where(batches.c.number == number)
                .values(is_live=True, artifact=artifact)
            )
        self.remove(batches.c.number.in_(set(before) - {number}))

    def sweep(self, is_over: Callable[[str], bool]) -> None:
        """Remove what jobs stored that ended before it could take over."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(batches.c.number, batches.c.job).where(~batches.c.is_live)
            ).all()
        gone = [row.number for row in rows if is_over(row.job)]
        self.remove(batches.c.number.in_(gone))

    def under_way(self, model: str | None) -> list[str]:
        """Return which jobs are storing predictions, of one model or of all."""
        which = (
            [~batches.c.is_live]
            if model is None
            else [~batches.c.is_live, batches.c.model == model]
        )
        with self._database.read() as connection:
            return list(connection.scalars(select(batches.c.job).where(*which).distinct()))

    def find(
        self,
        loaded: Loaded,
        settings: Cached,
        rows: Sequence[Any],
        *,
        tenant: str | None,
    ) -> Remembered | None:
        """Return what the batch in force says of all rows, or nothing if one has to be computed.

        Args:
            loaded: the version that is asked.
            settings: of it.
            rows: of the request.
            tenant: who asks.

        Raises:
            NotFound: a row has no prediction, and by the settings none is computed.
        """
        with self._database.read() as connection:
            batch = connection.execute(
                select(batches).where(*_of(loaded.name, tenant), batches.c.is_live)
            ).one_or_none()
            if batch is None or not self._answers(batch, loaded, settings):
                _refuse_unknown(settings, f"of {loaded.served} that is in force")
                return None
            keys = [digest_of(row, batch.key) for row in rows]
            found: dict[str, Any] = {}
            for part in parted({key for key in keys if key is not None}, ASKED):
                chosen = select(answers.c.key, answers.c.answer).where(
                    answers.c.batch_number == batch.number, answers.c.key.in_(part)
                )
                found |= {row.key: row.answer for row in connection.execute(chosen)}
        missing = next((at for at, key in enumerate(keys) if key not in found), None)
        if missing is not None:
            row = rows[missing]
            given = {name: row.get(name) for name in settings.key} if type(row) is dict else row
            _refuse_unknown(settings, f"of row {missing}, {shown(given)}")
            return None
        said = [found[str(key)] for key in keys]
        return Remembered(batch.made_by, batch.artifact, batch.made_at, said)

    def _answers(self, batch: Row[Any], loaded: Loaded, settings: Cached) -> bool:
        age = settings.max_age_seconds
        return (
            isinstance(batch.key, dict)  # before, nothing said which columns were times
            and list(batch.key) == list(dict.fromkeys(settings.key))
            and (settings.other_versions or batch.digest == loaded.reference.digest)
            and (age is None or self._clock() - batch.made_at <= timedelta(seconds=age))
        )

    def remove(self, *which: ColumnElement[bool]) -> None:
        """Remove batches, some rows at a time, so that nobody waits long for the database."""
        with self._database.read() as connection:
            numbers = connection.scalars(select(batches.c.number).where(*which)).all()
        for number in numbers:
            mine = answers.c.batch_number == number
            some = select(answers.c.key).where(mine).limit(WRITTEN)
            removed = WRITTEN
            while removed == WRITTEN:
                with self._database.write(durable=False) as connection:
                    removed = connection.execute(
                        delete(answers).where(mine, answers.c.key.in_(some))
                    ).rowcount
            # This waits for the disk, and for what came before: what is said to be gone is gone.
            with self._database.write() as connection:
                connection.execute(delete(answers).where(mine))
                connection.execute(delete(batches).where(batches.c.number == number))


def without_keys(rows: Sequence[Any], settings: Cached | None, loaded: Loaded) -> Sequence[Any]:
    """Return rows without the columns that are keys of stored predictions alone."""
    if settings is None:
        return rows
    apart = set(settings.key) - {each.name for each in loaded.reader.asked}
    return [
        {name: value for name, value in row.items() if name not in apart}
        if type(row) is dict
        else row
        for row in rows
    ]


def _refuse_unknown(settings: Cached, what: str) -> None:
    if settings.unknown == "refuse":
        raise NotFound("stored prediction", what)


def parted(values: Iterable[_Value], size: int) -> Iterator[list[_Value]]:
    """Yield the values, at most `size` at a time."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def _of(model: str, tenant: str | None) -> list[ColumnElement[bool]]:
    owner = batches.c.tenant.is_(None) if tenant is None else batches.c.tenant == tenant
    return [batches.c.model == model, owner]


def digest_of(row: Any, kinds: Mapping[str, str]) -> str | None:
    """Return the digest of a key, however its numbers and times are written; None without one.

    Args:
        row: that has the columns of the key.
        kinds: by column, what the batch holds of it. Text that looks like a time is text where
            the batch has text.
    """
    if not isinstance(row, Mapping):
        return None
    found = [part_of_key(row.get(name), kind) for name, kind in kinds.items()]
    return None if None in found else hashlib.sha256(json.dumps(found).encode()).hexdigest()


def part_of_key(value: Any, kind: str) -> str | int | float | None:
    """Return one value of a key, the same however it is written; None where it is none."""
    if kind == VALUE:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value if isinstance(value, str | int | float) and value == value else None
    try:
        moments = moments_of([value], source="A key")
    except InvalidRequest:  # of a request: no batch has a prediction for what is no time
        return None
    return moments.microseconds[0] if moments.is_zoned is (kind == ZONED_TIME) else None


def _kind(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return ZONED_TIME
    return TIME if isinstance(value, date) else VALUE


def _require_key(row: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    key = digest_of(row, kinds)
    if key is None:
        given = {name: row.get(name) for name in kinds}
        raise InvalidRequest(f"A row has no key for models.cached: {shown(given)}")
    return key


def _answer(row: Mapping[str, Any], loaded: Loaded) -> dict[str, Any]:
    said = {"prediction": row["prediction"]}
    if loaded.class_names:
        said["probabilities"] = dict(zip(loaded.class_names, row["probabilities"], strict=True))
    return said
