"""What stays loaded: the models that were used last, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from service.prediction.loading import Key, Loaded

Model = TypeVar("Model", bound=Loaded)


class Shelf(Generic[Model]):
    """Models by name and digest. What is taken off lives on for the requests that use it."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._held: OrderedDict[Key, Model] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Model]:
        return iter(list(self._held.values()))

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def get(self, key: Key) -> Model | None:
        """Return a model, which counts as a use of it."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, loaded: Model) -> None:
        """Keep a model; others go, least recently used first, until there is room."""
        self.remove(loaded.key)
        self._held[loaded.key] = loaded
        self.bytes += loaded.runtime.size_bytes
        while self.bytes > self._capacity_bytes and len(self._held) > 1:
            self.remove(next(iter(self._held)))

    @property
    def is_full(self) -> bool:
        return self.bytes >= self._capacity_bytes

    def remove(self, key: Key) -> None:
        """Let a model go, if it is here."""
        gone = self._held.pop(key, None)
        if gone is not None:
            self.bytes -= gone.runtime.size_bytes
