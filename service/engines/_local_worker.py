"""The thread that a local model lives in: takes requests in, decodes all of them step by step."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from infra.errors import EngineFailed, RagstoneError, RateLimited
from service.engines._local_batch import Batch
from service.engines._local_requests import Sampling
from service.engines._local_sampling import Chooser, Chosen
from service.engines._local_text import Unfolding
from service.engines._local_weights import Weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added to an answer."""

    text: str = ""
    chosen: Chosen | None = None
    """Only where log probabilities are wanted."""
    finish_reason: str | None = None
    completion_tokens: int = 0
    """So far."""
    failure: RagstoneError | None = None


@dataclass(slots=True, eq=False)
class Job:
    """One answer to be written."""

    prompt: Sequence[int]
    sampling: Sampling
    max_tokens: int
    stops: Sequence[str]
    ignore_end: bool
    adapter: str
    """Empty for the plain model."""
    emit: Callable[[Piece], None]
    """Called in the worker's thread."""
    is_cancelled: bool = False
    count: int = 0
    last: int = 0
    chooser: Chooser | None = None
    text: Unfolding | None = None
    is_done: bool = field(default=False)


class Worker:
    """Loads the weights, then works until it is closed."""

    def __init__(self, load: Callable[[], Weights], *, max_running: int, max_waiting: int) -> None:
        self.loaded: Future[Weights] = Future()
        self.steps = 0
        """Calls of the model."""
        self._load = load
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._running: list[Job] = []
        self._adapters: set[str] = set()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="local-model", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def adapters(self) -> frozenset[str]:
        return frozenset(self._adapters)

    @property
    def is_well(self) -> bool:
        failed = self.loaded.done() and self.loaded.exception() is not None
        return self._thread.is_alive() and not failed

    def submit(self, job: Job) -> None:
        """Put a request in the queue.

        Raises:
            RateLimited: as many as may wait are waiting.
            EngineFailed: the model is closed.
        """
        with self._changed:
            if self._is_closing:
                raise EngineFailed("The model has been closed")
            if len(self._waiting) >= self._max_waiting:
                raise RateLimited(
                    f"{self.running} requests are being answered and {self.waiting} wait; try "
                    "again shortly"
                )
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Stop working on a request, at the latest after the step under way."""
        with self._changed:
            job.is_cancelled = True
            self._changed.notify()

    def load_adapter(self, name: str, load: Callable[[], None]) -> Future[None]:
        """Have an adapter loaded between two steps."""

        def order() -> None:
            if name not in self._adapters:
                load()
                self._adapters.add(name)

        return self._order(order)

    def unload_adapter(self, name: str, unload: Callable[[], None]) -> Future[None]:
        """Take no more requests for an adapter, and free it once nothing uses it."""
        self._adapters.discard(name)

        def order() -> None:
            if name in self._adapters:  # it was loaded again meanwhile
                return
            if any(job.adapter == name for job in (*self._running, *self._waiting)):
                with self._changed:
                    self._orders.append((order, Future()))
            else:
                unload()

        return self._order(order)

    def close(self) -> None:
        """Fail what is under way and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _order(self, order: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        with self._changed:
            if self._is_closing:
                raise EngineFailed("The model has been closed")
            self._orders.append((order, done))
            self._changed.notify()
        return done

    def _work(self) -> None:
        try:
            weights = self._load()
            self.loaded.set_result(weights)
            self._run(weights)
        except RagstoneError as error:
            logger.error("%s", error.message)
            self.loaded.set_exception(error)
        finally:  # also if it is by a fault of ours: nobody is to wait for an answer
            self._end()

    def _run(self, weights: Weights) -> None:
        batch = self._new_batch(weights)
        while self._wait():
            self._follow_orders()
            try:
                self._advance(batch, weights)
            except (RuntimeError, ValueError, IndexError) as error:
                logger.exception("a step of the model failed")
                self._fail(EngineFailed(f"The model failed: {error}"))
                batch = self._new_batch(weights)

    def _end(self) -> None:
        gone = EngineFailed("The model has been closed")
        with self._changed:
            self._is_closing = True
            orders = [done for _, done in self._orders]
        if not self.loaded.done():
            self.loaded.set_exception(EngineFailed("The model cannot be loaded; the log says why"))
        for done in orders:
            if not done.done():
                done.set_exception(gone)
        self._fail(gone)

    def _new_batch(self, weights: Weights) -> Batch:
        return Batch(weights.forward, device=weights.device, padding=weights.padding)

    def _wait(self) -> bool:
        """Return when there is something to do; False when it is to end."""
        with self._changed:
            while not (self._running or self._waiting or self._orders or self._is_closing):
                self._changed.wait()
            return not self._is_closing

    def _follow_orders(self) -> None:
        for _ in range(len(self._orders)):
            order, done = self._orders.popleft()
            try:
                order()
                done.set_result(None)
            except RagstoneError as error:
                done.set_exception(error)
            except Exception as error:  # of an adapter alone: the model answers on
                logger.exception("an adapter failed")
                done.set_exception(EngineFailed(f"The adapter failed: {error}"))

    def _advance(self, batch: Batch, weights: Weights) -> None:
        """Let go of what has ended, take in what waits, append one token to every answer."""
        self._keep_living(batch)
        if self._running:
            logits = batch.step([job.last for job in self._running])
            self.steps += 1
            for job, row in zip(self._running, logits, strict=True):
                job.emit(_appended(job, row, weights))
        if new := self._admitted():
            for job in new:
                job.chooser = Chooser(job.sampling, job.prompt, device=weights.device)
                job.text = Unfolding(weights.tokenizer, job.stops)
            self._running.extend(new)
            logits = batch.join([job.prompt for job in new], [job.adapter for job in new])
            self.steps += 1
            for job, row in zip(new, logits, strict=True):
                job.emit(_appended(job, row, weights))

    def _keep_living(self, batch: Batch) -> None:
        rows = [
            row for row, job in enumerate(self._running) if not (job.is_done or job.is_cancelled)
        ]
        if len(rows) < len(self._running):
            self._running = [self._running[row] for row in rows]
            batch.keep(rows)

    def _admitted(self) -> list[Job]:
        with self._changed:
            new: list[Job] = []
            while self._waiting and len(self._running) + len(new) < self._max_running:
                job = self._waiting.popleft()
                if not job.is_cancelled:
                    new.append(job)
            return new

    def _fail(self, error: EngineFailed) -> None:
        with self._changed:
            jobs = [*self._running, *self._waiting]
            self._running = []
            self._waiting.clear()
        for job in jobs:
            if not job.is_done:
                job.emit(Piece(failure=error))


def _appended(job: Job, logits: object, weights: Weights) -> Piece:
    """Choose a job's next token; one that cannot go on fails alone."""
    try:
        return _next(job, logits, weights)
    except (RuntimeError, ValueError, IndexError, OverflowError) as error:
        logger.exception("a request cannot be answered")
        job.is_done = True
        return Piece(failure=EngineFailed(f"The request cannot be answered: {error}"))


def _next(job: Job, logits: object, weights: Weights) -> Piece:
    if job.chooser is None or job.text is None:
        raise ValueError("A request was not prepared")
    chosen = job.chooser.choose(logits)
    job.last, job.count = chosen.token, job.count + 1
    is_end = chosen.token in weights.end_tokens and not job.ignore_end
    text = "" if is_end else job.text.push(chosen.token)
    reason = None
    if is_end or job.text.is_stopped:
        reason = "stop"
    elif job.count >= job.max_tokens:
        reason = "length"
    if reason is not None:
        job.is_done = True
        text += job.text.finish()
    told = chosen if job.sampling.logprobs is not None and not is_end else None
    return Piece(text, told, reason, job.count)
