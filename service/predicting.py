"""The prediction path: find the version, read the rows, wait for a batch, decide, record."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
USER_HEADER = "x-ragstone-user"
"""In a request whom it is for: the same version answers the same user."""
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
        add: Callable[[Interaction], None] | None = None,
    ) -> None:
        """Take the models, who charges, counts, explains, compares, and keeps interactions."""
        self.models = models
        self._options = models.options
        self._meter = meter
        self._metrics = metrics
        self._explainer = explainer
        self._canaries = canaries
        self._add = add
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

    async def stored(
        self, asked: Asked, rows: Sequence[Any], cached: CachedPredictions
    ) -> Stored | None:
        """Answer rows from what a job stored of their keys; None where they are to be computed.

        Raises:
            NotFound, NotReady: as `find`; or a row has no prediction, and none is computed.
            RateLimited: the caller asks too much.
        """
        start = time.perf_counter()
        settings = self._options.cached.get(asked.name)
        if settings is None or asked.explain or not 0 < len(rows) <= self._options.max_rows:
            return None
        loaded = await self.find(asked)
        with self._counted(asked.name):
            kept = await in_thread(
                lambda: cached.find(loaded, settings, rows, tenant=asked.caller.tenant)
            )
            if kept is None:
                return None
            bill = await self._bill(asked)
            try:
                bill.settle(0)
            finally:
                bill.close()
        seconds = time.perf_counter() - start
        self._metrics.observe(loaded.name, loaded.version, rows=len(rows), seconds=seconds)
        stored = Stored(self._ids(), kept, bill.headers)
        if self._add is not None:
            origin, add = Origin(asked.caller, datetime.now(UTC)), self._add
            write = partial(
                record_stored,
                kept,
                stored.id,
                add,
                origin=origin,
                seconds=seconds,
                has_content=self._options.keep == "predictions",
            )
            await in_thread(write)
        return stored

    async def _bill(self, asked: Asked) -> Bill:
        return await open_bill(
            self._meter(),
            caller=asked.caller,
            engine=f"{classical.KIND}/{asked.name}",
            prompt_tokens=0,
        )

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
        with self._counted(asked.name):
            table = await _table(read, loaded, is_large=asked.is_large)
            if asked.explain:
                await in_thread(lambda: self._explainer.check(loaded))
            bill = await self._bill(asked)
            try:
                run = await self._run(asked, loaded, table, read)
                bill.settle(0)
            finally:
                bill.close()
        seconds = time.perf_counter() - start
        origin = Origin(asked.caller, datetime.now(UTC))
        await self._note(run.predicted, origin, seconds)
        if run.other is None:
            return Answer(run.predicted, bill.headers)
        self._canaries.follow(run.predicted, run.other, run.failure, read=read, origin=origin)
        return Answer(run.predicted, {**bill.headers, TARGET_HEADER: run.predicted.tag})

    async def _run(self, asked: Asked, loaded: Hosted, table: Table, read: Read) -> _Run:
        most = self._options.deadline_seconds
        limit = most if asked.seconds is None else min(asked.seconds, most)
        is_usual = limit >= most  # or a canary would be held to less than it was put up for
        other, failure = None, None
        if asked.selector is None and not asked.explain:
            other = self.models.challenger(loaded)
        try:
            async with asyncio.timeout(limit):
                user = asked.user or asked.caller.key_id
                if other is not None and is_usual and self._canaries.draws(other, user):
                    try:
                        theirs, values = await self._canaries.answer(
                            other,
                            loaded,
                            table,
                            read=partial(_table, read, is_large=asked.is_large),
                            seconds=limit / 2,
                        )
                        return _Run(self._predicted(other, theirs, values, CANARY), loaded)
                    except RagstoneError as error:
                        failure = error
                values = await loaded.batcher.run(table)
                predicted = self._predicted(loaded, table, values, asked.selector or LIVE)
                if asked.explain:
                    explained = await in_thread(lambda: self._explainer.explain(predicted))
                    predicted = replace(predicted, explanations=explained)
                return _Run(predicted, other, failure)
        except TimeoutError:
            raise EngineTimedOut(f"The model did not answer within {limit:g} s") from None

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

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        try:
            yield
        except RagstoneError as error:
            self._metrics.count(name, outcome_of(error))
            raise


async def _table(read: Read, loaded: Loaded, *, is_large: bool) -> Table:
    return await in_thread(lambda: read(loaded)) if is_large else read(loaded)
