"""Mirrors runs to TensorBoard: a folder of event files per run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infra.errors import InvalidConfiguration, MissingDependency, StorageFailed
from infra.plugins import require
from infra.security import new_id
from infra.tracking.parameters import as_json, flatten
from infra.tracking.points import Points
from infra.tracking.records import Link, RunRecord

EXTRA = "tracking"


def build(folder: str) -> TensorBoard:
    """Return the mirror that writes below `folder`, which `tensorboard --logdir` then shows."""
    if "://" in folder:
        raise InvalidConfiguration(
            f"tracking.mirror_options.tensorboard.folder: {folder!r} is no local folder"
        )
    if find_spec("tensorboardX") is None:
        raise MissingDependency("tensorboardX", extra=EXTRA)
    return TensorBoard(Path(folder))


class TensorBoard:
    """Writes event files; every process adds its own, which TensorBoard reads as one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}

    def open(self, run: RunRecord, remote_id: str | None) -> str:
        name = re.sub(r"[^\w.-]+", "_", run.name)[:100]
        remote_id = f"{name}-{run.id}"
        if remote_id not in self._files:
            self._files[remote_id] = self._create(remote_id)
            told = {"kind": run.kind, "parameters": flatten(run.parameters), "tags": run.tags}
            self._add_text(remote_id, "run", told, at=run.started_at.timestamp())
        return remote_id

    def write(self, remote_id: str, points: Mapping[str, Points]) -> None:
        events = require("tensorboardX.proto.event_pb2", extra=EXTRA)
        summaries = require("tensorboardX.proto.summary_pb2", extra=EXTRA)
        file = self._files[remote_id]
        try:
            for name, found in points.items():
                rows = zip(found.steps, found.times, found.values, strict=True)
                for step, at, value in rows:
                    scalar = summaries.Summary.Value(tag=name, simple_value=float(value))
                    file.write_event(
                        events.Event(
                            step=int(step),
                            wall_time=float(at),
                            summary=summaries.Summary(value=[scalar]),
                        )
                    )
            file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self, remote_id: str, run: RunRecord, links: Sequence[Link]) -> None:
        ended = {
            "state": run.state,
            "reason": run.exit_reason,
            "artifacts": [f"{link.direction} {link.reference} as {link.role}" for link in links],
        }
        at = (run.finished_at or run.seen_at).timestamp()
        self._add_text(remote_id, "ended", ended, at=at)
        try:
            self._files.pop(remote_id).close()
        except OSError as error:
            raise self._failed(error) from error

    def _create(self, remote_id: str) -> Any:
        writer = require("tensorboardX.event_file_writer", extra=EXTRA)
        folder = self._folder / remote_id
        # The name alone is by the second: two processes, or two tries, must not share a file.
        ending = f".{os.getpid()}.{new_id('')}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return writer.EventsWriter(str(folder.resolve() / "events"), ending)
        except OSError as error:
            raise self._failed(error) from error

    def _add_text(self, remote_id: str, tag: str, value: Mapping[str, Any], *, at: float) -> None:
        events = require("tensorboardX.proto.event_pb2", extra=EXTRA)
        summary = require("tensorboardX.summary", extra=EXTRA)
        # Indented text is shown as it stands, not read as Markdown.
        lines = json.dumps(as_json(value), indent=2, default=str).splitlines()
        text = "\n".join(f"    {line}" for line in lines)
        try:
            self._files[remote_id].write_event(
                events.Event(step=0, wall_time=at, summary=summary.text(tag, text))
            )
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageFailed:
        return StorageFailed(f"TensorBoard: {str(self._folder)!r}: {error.strerror or error}")
