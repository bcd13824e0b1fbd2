"""A folder of files that can be made again: published whole, checked at every use, healed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"
ABANDONED_AFTER_SECONDS = 24 * 3600.0


class Cache:
    """Entries are folders, made beside their place and moved there by one rename.

    Processes need no lock: of two that make the same entry, one is first and the other uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder of an entry, whose files are those that `make` wrote into it.

        An entry that is damaged is made again. Where the cache cannot be written, the entry is made
        in a new folder of its own, which the caller may remove.
        """
        found = self.folder / key
        if is_whole(found):
            return found
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
            return self._publish(found, make)
        except OSError as error:
            logger.warning("the cache %s cannot be written: %s", self.folder, error)
            own = Path(tempfile.mkdtemp(prefix="ragstone-model-"))
            try:
                make(own)
            except BaseException:
                shutil.rmtree(own, ignore_errors=True)
                raise
            return own

    def _publish(self, place: Path, make: Callable[[Path], None]) -> Path:
        made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.folder))
        try:
            make(made)
            _seal(made)
            if place.exists() and not is_whole(place):
                logger.warning("%s is damaged and was made again", place)
                _remove(place)
            try:
                made.rename(place)
            except OSError:
                if not is_whole(place):  # not the work of a process that was first
                    raise
            _sync(self.folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return place

    def _sweep(self) -> None:
        """Remove what processes that died have left."""
        before = time.time() - ABANDONED_AFTER_SECONDS
        for path in self.folder.glob(f"{UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    shutil.rmtree(path, ignore_errors=True)


def is_whole(entry: Path) -> bool:
    """Tell whether an entry's files are those that were written."""
    try:
        manifest: dict[str, Any] = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(
            _digest(entry / name) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _remove(entry: Path) -> None:
    """Take an entry away at once, and its files after that."""
    aside = entry.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Make the files durable, and say what they are."""
    digests = {}
    for path in sorted(folder.iterdir()):
        digests[path.name] = _digest(path)
        _sync(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    _sync(manifest)
    _sync(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
