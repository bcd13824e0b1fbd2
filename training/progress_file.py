"""What a run tells other programs: a line of JSON for its plan, each step, and how it failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import RagstoneError, StorageFailed
from training.problems import Refused

if TYPE_CHECKING:
    from training.callbacks import Progress
    from training.lock import Lock

MAX_BYTES = 1 << 20
"""Of what is read at once."""

logger = logging.getLogger(__name__)


class ProgressFile:
    """Appends objects with an `event`: `planned`, `note`, `step`, `evaluated`, `refused`, `failed`.

    A run that goes on appends to the lines of the one that broke off. Where the file cannot be
    written, as on a full disk, the run goes on untold.
    """

    def __init__(self, file: RawIOBase | None, *, is_whole: bool = True) -> None:
        """Take what is written to, and whether its last line is whole; None keeps nothing."""
        self._file = file
        self._is_whole = is_whole
        self._is_lost = False
        self._last: Progress | None = None

    def planned(self, lock: Lock) -> None:
        """Tell that the plan is sound, and what it comes to."""
        self._write("planned", steps=(lock.batches or {}).get("steps"), lengths=dict(lock.lengths))

    def note(self, text: str) -> None:
        """Tell what is done, in words."""
        self._write("note", message=text)

    def step(self, progress: Progress) -> None:
        """Tell of a step."""
        self._last = progress
        self._write(
            "step",
            step=progress.step,
            steps=progress.steps,
            loss=progress.loss,
            tokens=progress.metrics.get("num_tokens"),
            accuracy=progress.metrics.get("mean_token_accuracy"),
            seconds_left=progress.seconds_left,
        )

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell of the loss on held-out rows after a step that was told, with that of the step."""
        if self._last is not None and self._last.step == step:
            self._write(
                "evaluated",
                step=step,
                steps=self._last.steps,
                loss=self._last.loss,
                held_out_loss=metrics["eval_loss"],
                accuracy=self._last.metrics.get("mean_token_accuracy"),
            )

    def failed(self, error: RagstoneError) -> None:
        """Tell why nothing comes out."""
        if isinstance(error, Refused):
            problems = [{"where": each.where, "what": each.what} for each in error.problems]
            self._write("refused", problems=problems)
        else:
            self._write("failed", kind=type(error).__name__, message=error.message)

    def _write(self, event: str, **values: Any) -> None:
        if self._file is None:
            return
        line = f"{json.dumps({'event': event, **values})}\n".encode()
        whole = line if self._is_whole else b"\n" + line
        try:
            written = self._file.write(whole)
        except OSError as error:
            self._lose(error.strerror)
            return
        self._is_whole = written == len(whole)
        if self._is_whole:
            self._is_lost = False
        else:
            self._lose("there is no room for a whole line")

    def _lose(self, why: str | None) -> None:
        """Say once, not for every step, that nothing is told any more."""
        if not self._is_lost:
            logger.warning("progress cannot be written: %s", why)
        self._is_lost = True


@contextmanager
def telling(path: Path | None) -> Iterator[ProgressFile]:
    """Write to a file what a run tells within the block, and how it fails.

    Raises:
        StorageFailed: the file cannot be opened.
    """
    if path is None:
        yield ProgressFile(None)
        return
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise StorageFailed(f"{str(path)!r} cannot be written: {error.strerror}") from error
    with file:
        told = ProgressFile(file, is_whole=not _is_cut_off(path))
        try:
            yield told
        except RagstoneError as error:
            told.failed(error)
            raise


def read(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the events after an offset in bytes, and where those after them begin.

    A line that is not written to its end is for the next time; one that never was is passed over.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(MAX_BYTES)
    except FileNotFoundError:
        return [], offset
    whole = data[: data.rfind(b"\n") + 1]
    if not whole and len(data) == MAX_BYTES:
        return [], offset + MAX_BYTES  # no event is as long
    return [event for line in whole.splitlines() if (event := _event(line))], offset + len(whole)


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None


def _is_cut_off(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read(1) != b"\n"
