"""A file system that fills up, crashes or loses power at any call, to hand to a store in tests."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from infra.artifacts.files import Files

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Crash(BaseException):
    """The process is gone: nothing catches it, and no clean-up reaches the disk."""


class FailingFiles(Files):
    """Works until its `at`-th change, counted from 1, and then crashes or raises `error`.

    After a crash every change raises `Crash`. `lose_power` then takes away what was never synced.
    """

    def __init__(self, at: int | None = None, *, error: int | None = None) -> None:
        self.changes = 0
        self._at = at
        self._error = error
        self._crashed = False
        self._paths: dict[int, str] = {}
        self._dirty: set[str] = set()
        self._synced: set[str] = set()
        self._since = time.time_ns()
        self._names: list[tuple[str, str]] = []

    @classmethod
    def full_disk(cls, at: int) -> FailingFiles:
        """Has no room left at its `at`-th change, and for good."""
        return cls(at, error=errno.ENOSPC)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:  # type: ignore[override]
        created = bool(flags & os.O_CREAT)
        descriptor = self._change(os.open, path, flags, mode) if created else os.open(path, flags)
        self._paths[descriptor] = os.path.abspath(path)
        if created:
            self._name(path)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        self._dirty.add(self._paths[descriptor])
        gone = self._crashed
        try:
            return self._change(os.write, descriptor, data)
        except Crash:
            if not gone:
                os.write(descriptor, memoryview(data)[: len(data) // 2 // 4096 * 4096])
            raise

    def fsync(self, descriptor: int) -> None:  # type: ignore[override]
        self._change(os.fsync, descriptor)
        path = self._paths[descriptor]
        self._dirty.discard(path)
        self._synced.add(path)
        self._names = [(folder, name) for folder, name in self._names if folder != path]

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._change(os.ftruncate, descriptor, size)

    def fchmod(self, descriptor: int, mode: int) -> None:
        self._change(os.fchmod, descriptor, mode)

    def link(self, source: Any, target: Any) -> None:  # type: ignore[override]
        self._change(os.link, source, target)
        self._name(target)
        self._rename(os.path.abspath(source), os.path.abspath(target))

    def replace(self, source: Any, target: Any) -> None:  # type: ignore[override]
        existed = os.path.exists(target)
        self._change(os.replace, source, target)
        if not existed:
            self._name(target)
        self._rename(os.path.abspath(source), os.path.abspath(target))

    def unlink(self, path: Any) -> None:  # type: ignore[override]
        self._change(os.unlink, path)

    def rmdir(self, path: Any) -> None:  # type: ignore[override]
        self._change(os.rmdir, path)

    def mkdir(self, path: Any) -> None:  # type: ignore[override]
        self._change(os.mkdir, path)
        self._name(path)

    def remove_tree(self, folder: str | Path) -> None:
        self._change(super().remove_tree, folder)

    def lose_power(self) -> None:
        """Remove the names that no sync of their folder made durable, spoil unsynced bytes."""
        for path in self._dirty:
            if os.path.isfile(path):
                os.chmod(path, 0o600)
                os.truncate(path, os.path.getsize(path) // 2)
        for _, path in reversed(self._names):
            if os.path.isdir(path):
                super().remove_tree(path)
            elif os.path.lexists(path):
                os.unlink(path)

    def _change(self, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if self._crashed:
            raise Crash
        self.changes += 1
        if self._at is not None and self.changes >= self._at:
            if self._error is None:
                self._crashed = True
                raise Crash
            if call in {os.write, os.open, os.mkdir, os.link, os.ftruncate}:
                raise OSError(self._error, os.strerror(self._error))
        return call(*args, **kwargs)

    def _name(self, path: Any) -> None:
        absolute = os.path.abspath(path)
        self._names.append((os.path.dirname(absolute), absolute))

    def _rename(self, source: str, target: str) -> None:
        # What others wrote since we began is not on the disk either until it is synced here.
        fresh = os.path.isfile(target) and os.stat(target).st_mtime_ns >= self._since
        if source in self._dirty or (fresh and source not in self._synced):
            self._dirty.add(target)
        elif source in self._synced:
            self._synced.add(target)
