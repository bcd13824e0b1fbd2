"""The folder of one run: what it is of, its checkpoints, its adapter, how it ended."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import Conflict, StorageFailed
from training.measurements import Measurements
from training.spec import learning

logger = logging.getLogger(__name__)

LOCK = "lock.json"
OUTCOME = "outcome.json"
SMOKE = "smoke.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Files by which a run that broke off is found and gone on with."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def draft(self) -> Path:
        """An adapter that nobody has verified yet."""
        return self.path / "adapter.part"

    @property
    def adapter(self) -> Path:
        """The verified one."""
        return self.path / "adapter"

    @property
    def measurements(self) -> Measurements:
        return Measurements(self.path / "measurements.jsonl")

    def claim(self, lock: Mapping[str, Any]) -> None:
        """Make the folder, or find that it is of the same run.

        Raises:
            Conflict: it is of another run.
            StorageFailed: it cannot be written.
        """
        known, new = read_json(self.path / LOCK), json.loads(json.dumps(lock))
        if known is None:
            write_json(self.path / LOCK, new)
            return
        was, wanted = _decisive(known), _decisive(new)
        changed = [key for key in wanted if was[key] != wanted[key]]
        if changed:
            raise Conflict(
                f"{str(self.path)!r} is of a run with another {', '.join(changed)}; "
                "give another folder"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training in it at the same time, once it is claimed.

        Where the file system knows no locks nobody is kept out.

        Raises:
            Conflict: another process does.
        """
        with (self.path / LOCK).open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    f"Another process trains in {str(self.path)!r}; wait for it, or end it"
                ) from None
            except OSError:
                logger.info("%s cannot be locked", file.name)
            yield

    def passed(self) -> dict[str, Any] | None:
        """Return of which plan and device the smoke checks passed, `None` if they have not."""
        return read_json(self.path / SMOKE)

    def keep_passed(self, of: Mapping[str, Any]) -> None:
        """Write of which plan and device they passed, so that they are not made again for it."""
        write_json(self.path / SMOKE, of)

    def accept(self) -> None:
        """Put the draft, which was verified, in place of an adapter that is there."""
        shutil.rmtree(self.adapter, ignore_errors=True)
        self.draft.rename(self.adapter)

    def outcome(self) -> dict[str, Any] | None:
        """Return how the run ended, `None` if it did not end well yet."""
        return read_json(self.path / OUTCOME)

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Write how it ended, so that running it again says the same."""
        write_json(self.path / OUTCOME, outcome)


def _decisive(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a lock must be the same for a run to be gone on with."""
    batches = lock.get("batches") or {}
    return {
        "spec": learning(lock.get("spec") or {}),
        "digests": lock.get("digests"),
        "rows_per_step": batches.get("rows_per_step"),
        "steps": batches.get("steps"),
    }


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file of a run says, `None` if there is none or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            json.dump(values, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError as error:
        raise StorageFailed(f"{str(path)!r} cannot be written: {error.strerror}") from error
