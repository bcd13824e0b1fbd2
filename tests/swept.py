"""Sweeps as tests run them: of a tiny model, by a program whose runs take no time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sweep_program
from infra.errors import NotFound, NotReady
from training import planning
from training.launchers import Handle, Launcher, Log, Spec, Status, handle_for, open_launcher
from training.lengths import Lengths
from training.planning import Places, Plan
from training.spec import FineTuning, read
from training.sweeps.runs import Machinery
from training.sweeps.sweep import Around, Told, sweep
from tuning import write_spec

PROGRAM = Path(sweep_program.__file__)
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


class Instant:
    """Runs `PROGRAM` in this process, as far as it gets without waiting."""

    name = "instant"

    def __init__(self, **absent: int) -> None:
        """Take how often the place does not answer at first, by the name of a method."""
        self.absent = Counter(absent)
        self._statuses: dict[Handle, Status] = {}
        self._said: dict[Handle, str] = {}

    def submit(self, spec: Spec, *, key: str) -> Handle:
        self._answer("submit")
        handle = handle_for(self.name, key)
        said: list[str] = []
        try:
            code = sweep_program.main(list(spec.command[2:]), wait=_wait, write=said.append)
        except _Waits:
            self._statuses[handle] = Status("running")
        else:
            failed = Status("failed", code, "exit")
            self._statuses[handle] = failed if code else Status("succeeded", 0)
        self._said[handle] = "".join(said)
        return handle

    def poll(self, handle: Handle) -> Status:
        self._answer("poll")
        return self._statuses[handle]

    def logs(self, handle: Handle, *, offset: int = 0) -> Log:
        self._answer("logs")
        return Log(self._said[handle][offset:], len(self._said[handle]))

    def cancel(self, handle: Handle, *, grace_seconds: float = 0.0) -> None:
        del grace_seconds
        self._answer("cancel")
        if not self._statuses[handle].is_finished:
            self._statuses[handle] = Status("failed", -15, "cancelled")

    def reattach(self, text: str) -> Handle:
        if text not in self._statuses:
            raise NotFound("run", text)
        return Handle(text)

    def _answer(self, method: str) -> None:
        if self.absent[method] > 0:
            self.absent[method] -= 1
            raise NotReady("It does not answer now")


class _Waits(BaseException):
    """A run has come to where it waits."""


def _wait(_: float) -> None:
    raise _Waits


def around(
    folder: Path,
    *,
    launcher: Launcher | None = None,
    tell: Callable[[Told], None] = lambda _: None,
) -> Around:
    def plan(asked: FineTuning, known: Mapping[str, Lengths] | None) -> Plan:
        return planning.plan(
            asked, Places(folder, None, None, Path), reading=planning.Reading(known=known)
        )

    machinery = Machinery(
        launcher or open_launcher("local", folder=folder / "launched"),
        (sys.executable, str(PROGRAM)),
        folder,
    )
    return Around(plan, machinery, tell=tell, poll_seconds=0.02)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sweep(read(place.parent / "spec.yaml"), place, around(place.parent))
