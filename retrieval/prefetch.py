"""Runs an iterator ahead in a thread, by a bounded number of items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Value(Generic[Item]):
    value: Item


def prefetch(items: Iterable[Item], ahead: int) -> Iterator[Item]:
    """Yield the items in order while a thread computes up to `ahead` more; errors come here."""
    waiting: queue.Queue[_Value[Item] | _Raised | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def offer(entry: _Value[Item] | _Raised | None) -> None:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return

    def run() -> None:
        try:
            # Closed here, so that a chain of stages ends from its last to its first.
            with closing(items) if isinstance(items, Generator) else nullcontext():
                for item in items:
                    offer(_Value(item))
                    if stopped.is_set():
                        return
        except BaseException as error:  # noqa: BLE001  carried to the thread that listens
            offer(_Raised(error))
        offer(None)

    thread = threading.Thread(target=run, name="prefetch", daemon=True)
    thread.start()
    try:
        while (entry := waiting.get()) is not None:
            if isinstance(entry, _Raised):
                raise entry.error
            yield entry.value
    finally:
        stopped.set()
        thread.join()
