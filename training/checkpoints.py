"""Checkpoints of a training: sealed with the digests of their files, found again if whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path

from infra.errors import StorageFailed

logger = logging.getLogger(__name__)

SEAL = "seal.json"
"""Written last: the SHA-256 of each file, by its name."""
_NAMED = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: Path) -> None:
    """Say that a checkpoint is whole, once its files are on the disk.

    Raises:
        StorageFailed: the disk is full.
    """
    digests = {}
    for path in _files(checkpoint):
        digests[path.name] = _digest(path)
        _sync(path)
    draft = checkpoint / f"{SEAL}.part"
    try:
        with draft.open("w", encoding="utf-8") as file:
            json.dump(digests, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(checkpoint / SEAL)
    except OSError as error:
        raise StorageFailed(f"{str(checkpoint)!r} cannot be sealed: {error.strerror}") from error


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    found = _NAMED.fullmatch(checkpoint.name)
    return int(found.group(1)) if found else -1


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder whose files are as they were sealed.

    One that was being written when its process ended, or that has changed since, is passed over
    with a warning.
    """
    named = [each for each in folder.glob("checkpoint-*") if _NAMED.fullmatch(each.name)]
    for checkpoint in sorted(named, key=step_of, reverse=True):
        fault = _fault(checkpoint)
        if fault is None:
            return checkpoint
        logger.warning("%s is passed over: %s", checkpoint, fault)
    return None


def _fault(checkpoint: Path) -> str | None:
    try:
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it was not written to its end"
    except (OSError, ValueError) as error:
        return f"its seal cannot be read: {error}"
    for name, digest in sealed.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name!r} is missing"
        if _digest(path) != digest:
            return f"{name!r} is not what was written"
    return None


def _files(checkpoint: Path) -> list[Path]:
    return sorted(
        path for path in checkpoint.iterdir() if path.is_file() and not path.name.startswith(SEAL)
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
