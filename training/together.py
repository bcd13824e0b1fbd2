"""Work of several processes in which each may fail alone, and no other waits for it for ever."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Any

from infra.errors import RagstoneError
from infra.plugins import require
from training import ranks

GRACE_SECONDS = 5.0
"""That the others have to fail like one that failed, before they are taken to wait for it."""
PATIENCE_SECONDS = 1800.0
"""That a process which is done waits for one that is not."""
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.01, 1.0
"""How often each looks at the others: less and less."""

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """What became of the work of one process."""

    values: Values | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What became of the work of all."""

    each: list[Part | None]
    """By process; None of one that is not done, and waits for one that failed."""

    @property
    def are_whole(self) -> bool:
        """Whether all came to their end, so that they can do something else together."""
        return all(each is not None and each.failure is None for each in self.each)


class _Work(Thread):
    """Does something in a thread that nobody has to wait for.

    Nothing wakes a process that is in a collective without the others, except their end.
    """

    def __init__(self, work: Callable[[], Values], device: str) -> None:
        super().__init__(daemon=True, name="together")
        self.values: Values | None = None
        self.failure: BaseException | None = None
        self._work = work
        self._device = device

    def run(self) -> None:
        torch = require("torch", extra="finetune")
        if self._device != "cpu":
            torch.cuda.set_device(self._device)  # each thread has its own
        try:
            self.values = self._work()
        except BaseException as error:  # noqa: BLE001  it is raised again in the thread that waits
            self.failure = error


class Together:
    """Has all processes do something, and tells each what became of it in all; all must make one.

    What they tell each other goes by the store through which they met, for in a collective one
    might be missing.

    Args:
        device: of this process.
        grace_seconds: see `GRACE_SECONDS`.
        patience_seconds: see `PATIENCE_SECONDS`.
    """

    def __init__(
        self,
        device: str,
        *,
        grace_seconds: float = GRACE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        distributed = require("torch.distributed.distributed_c10d", extra="finetune")
        self._rank = ranks.this_rank()
        self._device = device
        self._grace = grace_seconds
        self._patience = patience_seconds
        # A connection of its own: the work may wait at the other one for a process that is missing.
        self._store = distributed._get_default_store().clone()
        self._key = ranks.told_by_first(lambda: f"together/{secrets.token_hex(8)}")
        self._number = 0

    def parts(self, work: Callable[[], Values]) -> Parts:
        """Do something that all do, and return what became of it.

        After parts that are not whole, processes may still wait for each other in the background,
        and can do no more than say so and end.

        Args:
            work: returns what JSON can say. A `RagstoneError` of it is told to all, not raised.

        Raises:
            Exception: any other of this process's own work, once the others know.
        """
        self._number += 1
        key = f"{self._key}/{self._number}"
        mine = _Work(work, self._device)
        mine.start()
        self._wait(key, mine)
        if mine.failure is not None and not isinstance(mine.failure, RagstoneError):
            raise mine.failure
        return Parts([self._part(f"{key}/{rank}") for rank in range(self._rank.world)])

    def _wait(self, key: str, mine: _Work) -> None:
        """Wait until all are done, or it is of no use any more."""
        store, look = self._store, FIRST_LOOK_SECONDS
        told_at = failed_at = None
        while True:
            if told_at is None and not mine.is_alive():
                self._tell(key, mine)
                told_at = time.monotonic()
            if store.add(f"{key}/done", 0) == self._rank.world:
                return
            now = time.monotonic()
            if failed_at is None and store.add(f"{key}/failed", 0):
                failed_at = now
            if failed_at is not None and now - failed_at > self._grace:
                return
            if told_at is not None and now - told_at > self._patience:
                store.add(f"{key}/failed", 1)
                return
            mine.join(look) if mine.is_alive() else time.sleep(look)
            look = min(2 * look, LAST_LOOK_SECONDS)

    def _tell(self, key: str, mine: _Work) -> None:
        error, said = mine.failure, None
        if error is not None:
            name = f"{type(error).__name__}: {error}"
            said = error.message if isinstance(error, RagstoneError) else name
        part = {"values": mine.values, "failure": said}
        self._store.set(f"{key}/{self._rank.number}", json.dumps(part))
        if error is not None:
            self._store.add(f"{key}/failed", 1)
        self._store.add(f"{key}/done", 1)

    def _part(self, key: str) -> Part | None:
        if not self._store.check([key]):
            return None
        return Part(**json.loads(self._store.get(key)))
