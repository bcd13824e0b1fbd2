"""Remembers what calls answered, by their content: nobody is asked the same twice."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import orjson

from infra.errors import NotReady
from infra.security import new_id


class Memory:
    """Answers of judges and other slow calls, one small file each; safe between processes.

    The folder can be kept with a suite, so that it runs again without a network.
    """

    def __init__(self, folder: Path | None = None, *, is_offline: bool = False) -> None:
        """Keep answers in a folder, or only as long as this object lives.

        Args:
            folder: need not be there yet.
            is_offline: whether nothing is called, so that what is not kept is an error.
        """
        self._folder = folder
        self._is_offline = is_offline
        self._known: dict[str, Any] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def recall(self, key: Mapping[str, Any], call: Callable[[], Awaitable[Any]]) -> Any:
        """Return what the call answered to the same key before, or make it and remember.

        Args:
            key: JSON values that decide the answer: model, its parameters, prompt, seed.
            call: returns JSON values; what it raises is raised, and not remembered.

        Raises:
            NotReady: it is not remembered, and nothing is called.
        """
        digest = hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).hexdigest()
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:  # who asks the same meanwhile waits for the one answer
            if digest not in self._known:
                found = self._read(digest)
                if found is None and self._is_offline:
                    raise NotReady(
                        f"The run is offline, and {str(self._folder)!r} has no answer to this"
                    )
                if found is None:
                    found = {"key": dict(key), "answer": await call()}
                    self._write(digest, found)
                self._known[digest] = found["answer"]
            return self._known[digest]

    @property
    def is_empty(self) -> bool:
        """Whether no answer is kept."""
        return not self._known and (
            self._folder is None or next(self._folder.glob("*/*.json"), None) is None
        )

    def _read(self, digest: str) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        with suppress(FileNotFoundError, orjson.JSONDecodeError):  # half written by a full disk
            found = orjson.loads(self._path(digest).read_bytes())
            if isinstance(found, dict) and "answer" in found:
                return found
        return None

    def _write(self, digest: str, found: Mapping[str, Any]) -> None:
        if self._folder is None:
            return
        path = self._path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{new_id('draft-')}")
        draft.write_bytes(orjson.dumps(found, option=orjson.OPT_SORT_KEYS))
        os.replace(draft, path)

    def _path(self, digest: str) -> Path:
        assert self._folder is not None
        return self._folder / digest[:2] / f"{digest[2:]}.json"
