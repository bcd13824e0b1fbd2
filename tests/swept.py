"""Sweeps as tests run them: of a tiny model, by a program whose runs take no time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training import planning
from training.launchers import open_launcher
from training.lengths import Lengths
from training.planning import Places, Plan
from training.spec import FineTuning, read
from training.sweeps.runs import Machinery
from training.sweeps.sweep import Around, Told, sweep
from tuning import write_spec

PROGRAM = Path(__file__).parent / "sweep_program.py"
RATES = {"low": 1e-5, "high": 0.1, "log": True}
SWEEP: dict[str, Any] = {
    "sampler": "random", "pruner": "none", "trials": 6, "parallel": 2,
    "parameters": {"schedule.learning_rate": RATES},
}  # fmt: skip


def spec_of(base: Path, folder: Path, changes: Mapping[str, Any] | None = None) -> FineTuning:
    """Return a specification whose sweep is `SWEEP` with changes."""
    whole = {
        "base.model": str(base / "base"),
        "data.train": {"rows": str(base / "train.jsonl")},
        "data.eval": {"rows": str(base / "eval.jsonl")},
        "schedule": {"rows_per_step": 4, "steps": 20},
        "sweep": {**SWEEP, **(changes or {})},
    }
    return read(write_spec(folder / "spec.yaml", whole))


def around(folder: Path, *, tell: Callable[[Told], None] = lambda _: None) -> Around:
    def plan(asked: FineTuning, known: Mapping[str, Lengths] | None) -> Plan:
        return planning.plan(
            asked, Places(folder, None, None, Path), reading=planning.Reading(known=known)
        )

    machinery = Machinery(
        open_launcher("local", folder=folder / "launched"),
        (sys.executable, str(PROGRAM)),
        folder,
    )
    return Around(plan, machinery, tell=tell, poll_seconds=0.02)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sweep(read(place.parent / "spec.yaml"), place, around(place.parent))
