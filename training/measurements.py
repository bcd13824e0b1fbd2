"""What a run measures of itself, as lines of a file in its folder, while it trains."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """What was measured after a step: `loss` and others of it, or `eval_loss` and others."""

    step: int
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measurements:
    """Lines are only added; gone on with after a kill, a run tells some steps a second time."""

    path: Path

    def add(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Add a line; where that fails, the run goes on, and its checkpoints will say why."""
        line = json.dumps({"step": step, "steps": steps, "metrics": dict(metrics)})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.path, error)

    def read(self) -> list[Mark]:
        """Return all whole lines; one that is being written is left for the next time."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        marks = []
        for line in text.splitlines():
            try:
                found = json.loads(line)
                marks.append(Mark(found["step"], found["steps"], found["metrics"]))
            except (ValueError, KeyError, TypeError):
                continue
        return marks
