"""Interactions that wait to be written: in order, bounded in number and in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeAlias

import orjson

from infra.contracts import Interaction
from monitoring.interaction_spool import InteractionSpool

CAPACITY = 50_000
CAPACITY_BYTES = 64 * 2**20
PLAIN_BYTES = 1_024
"""Of an interaction beside its content, roughly."""


class Unmade(Protocol):
    """What an interaction is made of later: less work while somebody is answered."""

    @property
    def id(self) -> str: ...

    @property
    def content_bytes(self) -> int:
        """About what its content is made of takes in memory."""

    @classmethod
    def columns(cls, batch: Sequence[Any]) -> dict[str, Sequence[Any]]:
        """Return the columns of the interactions of a batch; what is left out is null.

        Content is what JSON has: dictionaries, lists, texts and numbers.
        """


Taken: TypeAlias = Interaction | Unmade


class InteractionQueue:
    """Takes from many threads, gives to one."""

    def __init__(self, *, capacity: int = CAPACITY, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._waiting: deque[tuple[Taken, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Taken) -> bool:
        """Take an interaction, or return False where there is no room for it."""
        size = _size(item)
        with self._lock:
            is_full = len(self._waiting) >= self._capacity
            if is_full or self._bytes + size > self._capacity_bytes:
                return False
            self._waiting.append((item, size))
            self._bytes += size
        return True

    def first(self, most: int) -> Sequence[Taken]:
        """Return the oldest ones; they stay until they are removed."""
        with self._lock:
            return [item for item, _ in islice(self._waiting, most)]

    def remove(self, number: int) -> None:
        """Remove the oldest ones."""
        with self._lock:
            for _ in range(number):
                self._bytes -= self._waiting.popleft()[1]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where interactions wait to be written, and for how long."""

    queue: InteractionQueue = field(default_factory=InteractionQueue)
    spool: InteractionSpool | None = None
    """Takes them while the database is down."""
    flush_seconds: float = 0.5
    """How often a batch is written: what a crash can lose, with `patience_seconds` on top."""
    patience_seconds: float = 1.0
    """That other writers of the database are waited for, before what waits is put on disk."""


def _size(item: Taken) -> int:
    """Return about how many bytes it takes in memory, and in the database."""
    if not isinstance(item, Interaction):
        return PLAIN_BYTES + item.content_bytes
    if item.content is None:
        return PLAIN_BYTES
    try:
        return PLAIN_BYTES + len(orjson.dumps(item.content))
    except orjson.JSONEncodeError:  # the database will say so
        with suppress(RecursionError):
            return PLAIN_BYTES + len(repr(item.content))
    return PLAIN_BYTES
