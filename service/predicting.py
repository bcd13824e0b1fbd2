"""The prediction path: find the version, read the rows, wait for a batch, decide, record."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from numpy.typing import NDArray

from infra import classical
from infra.contracts import Interaction
from infra.errors import EngineTimedOut, RagstoneError
from infra.security import Ids
from monitoring.prediction_metrics import PredictionMetrics, outcome_of
from service.billing import Bill, open_bill
from service.callers import Caller
from service.gateway.calls import TARGET_HEADER
from service.gateway.meters import Meter
from service.limits import in_thread
from service.prediction.cached import CachedPredictions, Remembered
from service.prediction.canaries import Canaries
from service.prediction.columns import Table
from service.prediction.explaining import Explainer
from service.prediction.loading import Loaded
from service.prediction.models import Hosted, Models
from service.prediction.recording import CANARY, LIVE, Origin, Predicted, record, record_stored

Read = Callable[[Loaded], Table]
"""Reads what was asked as the columns of a model."""
MANY_ROWS = 32
"""From here on rows are read and written down in a thread, not on the loop that others wait for."""
MANY_BYTES = 16_384
"""The same of a body whose rows are not known before it is read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks which model."""

    caller: Caller
    name: str
    """Without `model/`."""
    selector: str | None = None
    """A version or an alias; by default the alias of the settings."""
    seconds: float | None = None
    """That the answer may take, where it is less than the settings say."""
    explain: bool = False
    """Whether to tell what each feature contributes to the score of each row."""
    is_large: bool = False
    """Whether rows are so many that they are read and joined off the loop."""
    user: str | None = None
    """What keeps a caller at the same version while a canary answers others; else the key."""
    is_alone: bool = False
    """No other request is under way that could share its batch."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is told."""

    predicted: Predicted
    headers: Mapping[str, str] = field(default_factory=dict)
    """`x-ratelimit-*`, and `x-ragstone-target` of a model that has a challenger."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a job had said before."""

    id: str
    kept: Remembered
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Records:
    """What was predicted before, and who keeps what is predicted now."""

    cached: Callable[[], CachedPredictions]
    """Asked for where settings say that there are some."""
    add: Callable[[Interaction], None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What became of the rows, and of the version that did not answer."""

    predicted: Predicted
    other: Hosted | None = None
    failure: RagstoneError | None = None
    """Why the other did not answer in the first place."""


class Predictor:
    """Answers for every face; knows no HTTP."""

    def __init__(
        self,
        models: Models,
        *,
        meter: Callable[[], Meter],
        metrics: PredictionMetrics,
        explainer: Explainer,
        canaries: Canaries,
        records: Records,
    ) -> None:
        """Take the models, who charges, counts, explains and compares, and the records."""
        self.models = models
        self._options = models.options
        self._meter = meter
        self._metrics = metrics
        self._explainer = explainer
        self._canaries = canaries
        self._cached = records.cached
        self._add = records.add
        self._ids = Ids("pred-")

    async def find(self, asked: Asked) -> Hosted:
        """Return the version that would answer.

        Raises:
            NotFound: there is none, or it is not the caller's.
            NotReady: it cannot be loaded.
        """
        asked.caller.require_model(f"{classical.KIND}/{asked.name}")
        found = self.models.at_hand(asked.name, asked.selector)
        return found or await self.models.find(asked.name, asked.selector)

    async def stored(self, asked: Asked, rows: Sequence[Any]) -> Stored | None:
        """Answer rows from what a job stored of their keys; None where they are to be computed.

        Raises:
            NotFound, NotReady: as `find`; or a row has no prediction, and none is computed.
            RateLimited: the caller asks too much.
        """
        settings = self._options.cached.get(asked.name)
        if settings is None or asked.explain or not 0 < len(rows) <= self._options.max_rows:
            return None
        start = time.perf_counter()
        loaded = await self.find(asked)
        tenant, cached = asked.caller.tenant, self._cached()
        try:
            kept = await in_thread(lambda: cached.find(loaded, settings, rows, tenant=tenant))
            if kept is None:
                return None
            bill = await self._bill(asked)
            try:
                bill.settle(0)
            finally:
                bill.close()
        except RagstoneError as error:
            self._metrics.count(asked.name, outcome_of(error))
            raise
        seconds = time.perf_counter() - start
        self._metrics.observe(loaded.name, loaded.version, rows=len(rows), seconds=seconds)
        stored = Stored(self._ids(), kept, bill.headers)
        if self._add is not None:
            write = partial(
                record_stored,
                kept,
                stored.id,
                self._add,
                origin=Origin(asked.caller, datetime.now(UTC)),
                seconds=seconds,
                has_content=self._options.keep == "predictions",
            )
            await in_thread(write)
        return stored

    async def predict(self, asked: Asked, read: Read) -> Answer:
        """Answer the rows that `read` returns.

        Raises:
            NotFound, NotReady: as `find`.
            InvalidRequest: the rows are not the model's, or it cannot be explained.
            RateLimited: the caller asks too much.
            Overloaded: too many requests wait for the model.
            EngineTimedOut: it was not answered in time.
            EngineFailed: the model cannot be run on these rows.
        """
        start = time.perf_counter()
        loaded = await self.find(asked)
        try:
            table = await _table(read, loaded, is_large=True) if asked.is_large else read(loaded)
            if asked.explain:
                await in_thread(lambda: self._explainer.check(loaded))
            bill = await self._bill(asked)
            try:
                run = await self._run(asked, loaded, table, read)
                bill.settle(0)
            finally:
                bill.close()
        except RagstoneError as error:
            self._metrics.count(asked.name, outcome_of(error))
            raise
        seconds = time.perf_counter() - start
        origin = Origin(asked.caller, datetime.now(UTC))
        await self._note(run.predicted, origin, seconds)
        if run.other is None:
            return Answer(run.predicted, bill.headers)
        self._canaries.follow(run.predicted, run.other, run.failure, read=read, origin=origin)
        return Answer(run.predicted, {**bill.headers, TARGET_HEADER: run.predicted.tag})

    async def _bill(self, asked: Asked) -> Bill:
        return await open_bill(
            self._meter(),
            caller=asked.caller,
            engine=f"{classical.KIND}/{asked.name}",
            prompt_tokens=0,
        )

    async def _run(self, asked: Asked, loaded: Hosted, table: Table, read: Read) -> _Run:
        most = self._options.deadline_seconds
        limit = most if asked.seconds is None else min(asked.seconds, most)
        try:
            if asked.explain:
                async with asyncio.timeout(limit):
                    return await self._explained(asked, loaded, table)
            other = self.models.challenger(loaded) if asked.selector is None else None
            is_usual = limit >= most  # or a canary would be held to less than it was put up for
            user = asked.user or asked.caller.key_id
            if other is not None and is_usual and self._canaries.draws(other, user):
                async with asyncio.timeout(limit):
                    again = partial(_table, read, is_large=asked.is_large)
                    return await self._by_canary(other, loaded, table, read=again, seconds=limit)
            values = loaded.batcher.run_now(table) if asked.is_alone else None
            if values is None:
                values = await loaded.batcher.run(table, limit)
        except TimeoutError:
            raise EngineTimedOut(f"The model did not answer within {limit:g} s") from None
        return _Run(self._predicted(loaded, table, values, asked.selector or LIVE), other)

    async def _explained(self, asked: Asked, loaded: Hosted, table: Table) -> _Run:
        values = await loaded.batcher.run(table)
        predicted = self._predicted(loaded, table, values, asked.selector or LIVE)
        explained = await in_thread(lambda: self._explainer.explain(predicted))
        return _Run(replace(predicted, explanations=explained))

    async def _by_canary(
        self,
        other: Hosted,
        loaded: Hosted,
        table: Table,
        *,
        read: Callable[[Loaded], Awaitable[Table]],
        seconds: float,
    ) -> _Run:
        """Have the challenger answer, or, where it fails, the version in use."""
        try:
            theirs, values = await self._canaries.answer(
                other, loaded, table, read=read, seconds=seconds / 2
            )
            return _Run(self._predicted(other, theirs, values, CANARY), loaded)
        except RagstoneError as error:
            values = await loaded.batcher.run(table)
            return _Run(self._predicted(loaded, table, values, LIVE), other, error)

    def _predicted(self, loaded: Loaded, table: Table, values: NDArray[Any], tag: str) -> Predicted:
        has_classes = loaded.model.classes is not None
        return Predicted(
            id=self._ids(),
            loaded=loaded,
            table=table,
            values=values,
            chosen=classical.decide(values, loaded.model) if has_classes else None,
            tag=tag,
        )

    async def _note(self, predicted: Predicted, origin: Origin, seconds: float) -> None:
        loaded, table = predicted.loaded, predicted.table
        self._metrics.observe(loaded.name, loaded.version, rows=table.rows, seconds=seconds)
        if table.warnings:
            for kind, number in Counter(each.kind for each in table.warnings).items():
                self._metrics.count_warnings(loaded.name, kind, number)
        if self._add is None:
            return
        write = partial(
            record,
            predicted,
            self._add,
            origin=origin,
            seconds=seconds,
            kept=self._options.keep,
        )
        if table.rows < MANY_ROWS:
            write()
        else:
            await in_thread(write)


async def _table(read: Read, loaded: Loaded, *, is_large: bool) -> Table:
    return await in_thread(lambda: read(loaded)) if is_large else read(loaded)
