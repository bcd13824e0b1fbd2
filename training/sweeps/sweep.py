"""From a specification to the lock of its best trial: ask, launch, follow, prune, tell."""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.errors import Conflict, InvalidRequest, NotReady, RagstoneError
from training import trainer
from training.launchers import Handle, Status
from training.lengths import Lengths
from training.lock import Lock
from training.planning import Plan
from training.run_folder import write_json
from training.spec import FineTuning
from training.sweeps import space
from training.sweeps.runs import Machinery, Runs
from training.sweeps.study import WHOLE, State, Study, Trial

BEST = "best.lock.json"
ALL_FAILED = 3
"""Trials after which a sweep ends of which none came to its end."""
MOST_LOST = 2
"""Runs of one trial that may be lost with their machine, or ended by somebody else."""
GONE = ("lost", "cancelled")

Planner = Callable[[FineTuning, Mapping[str, Lengths] | None], Plan]
"""Plans a specification of one run; rows of which the lengths are given are not read again."""


class SweepFailed(Conflict):
    """No trial came to its end; says why the last did not."""


@dataclass(frozen=True, slots=True)
class Told:
    """How far a sweep is."""

    trials: tuple[Trial, ...]
    most: int
    """Trials in all."""
    best: Trial | None
    changed: Trial
    """The one that ended just now."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a sweep uses of the process it is in."""

    plan: Planner
    machinery: Machinery
    tell: Callable[[Told], None] = lambda _: None
    poll_seconds: float = 0.5
    wait: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found."""

    trials: tuple[Trial, ...]
    best: Trial
    lock: Lock
    """Of the specification with the best values; `train rerun` trains and registers it."""
    path: Path
    """Of the lock."""


@dataclass(slots=True)
class _Run:
    attempt: int
    handle: Handle | None = None
    """`None` while there is no room for it."""
    lock: Lock | None = None
    """Once it was planned."""
    seen: int = 0
    """Percent of its last measurement."""


@dataclass(frozen=True, slots=True)
class _Ending:
    state: State
    value: float | None = None
    reason: str | None = None


def sweep(spec: FineTuning, folder: Path, around: Around) -> Swept:
    """Try what a specification says, or go on with a sweep of the folder that broke off.

    Killed, it leaves the runs of its trials as they are, and run again it finds them.

    Args:
        spec: with a section `sweep`.
        folder: of this sweep alone.
        around: how trials are planned and launched, who is told.

    Raises:
        InvalidRequest: a key cannot be swept, or the specification cannot be carried out.
        Conflict: the folder is of another sweep, what it names has changed since it began, or
            another process is at it.
        SweepFailed: no trial came to its end.
    """
    if spec.sweep is None:
        raise InvalidRequest("The specification has no section 'sweep'", parameter="spec")
    space.check(spec)
    _check_metric(spec)
    plain = space.with_values(spec, {})
    planned = around.plan(plain, None)
    planned.require_sound()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        every, digests = _every(plain, planned.lock), planned.lock.digests
        study = Study(spec, folder, every=every, digests=digests)
        runs = Runs(spec, folder.absolute(), study.token, around.machinery)
        sweeping = _Sweeping(spec, study, runs, around, planned)
        try:
            sweeping.run()
        except (KeyboardInterrupt, SystemExit):
            sweeping.stop()
            raise
        return _ended(folder, study, sweeping)


@dataclass(slots=True)
class _Sweeping:
    spec: FineTuning
    study: Study
    runs: Runs
    around: Around
    planned: Plan
    at_work: dict[int, _Run] = field(default_factory=dict)

    def run(self) -> None:
        assert self.spec.sweep is not None
        for trial in self.study.running():
            self.at_work[trial.number] = _Run(int(trial.notes.get("attempt", 0)))
        while True:
            while (
                len(self.at_work) < self.spec.sweep.parallel
                and len(self.study.trials()) < self.study.most
            ):
                self.at_work[self.study.ask().number] = _Run(0)
            if not self.at_work:
                return
            for number, run in list(self.at_work.items()):
                self._look(number, run)
            if self.at_work:
                self.around.wait(self.around.poll_seconds)

    def stop(self) -> None:
        """Ask all runs to go; each writes a checkpoint, from which the next attempt goes on."""
        for number, run in self.at_work.items():
            if run.handle is None:
                continue
            # One that cannot be reached now is found again, and still at its attempt.
            with suppress(RagstoneError):
                self.runs.stop(run.handle)
                self.study.note(number, attempt=run.attempt + 1)

    def lock(self, trial: Trial) -> Lock:
        """Plan the specification of a trial, with all that it is to be registered and served as."""
        whole = space.with_values(self.spec, trial.values)
        known = None if space.reads_other_rows(self.spec) else self.planned.lengths
        found = self.around.plan(whole, known)
        found.require_sound()
        return found.lock

    def _look(self, number: int, run: _Run) -> None:
        try:
            ending = self._go_on(number, run)
        except NotReady:
            return  # and asked again the next time
        except RagstoneError as error:
            ending = _Ending("failed", reason=error.message)
        if ending is not None:
            self._end(number, ending)

    def _go_on(self, number: int, run: _Run) -> _Ending | None:
        """Return how a trial ended, `None` while it has not."""
        if run.handle is None:
            trial = self.study.trial(number)
            run.handle = self.runs.begin(trial, run.attempt, lambda: self._planned(trial, run))
        status = self.runs.status(run.handle)
        self._follow(number, run)
        if status.is_finished:
            return self._finished(number, run, status)
        if 0 < run.seen < WHOLE and self.study.is_hopeless(number):
            self.study.note(number, pruned=True)
            self.runs.stop(run.handle)
            return _Ending("pruned")
        return None

    def _planned(self, trial: Trial, run: _Run) -> Lock:
        """Plan a run once, however often there is no room for it."""
        run.lock = run.lock or self.lock(trial)
        return run.lock

    def _follow(self, number: int, run: _Run) -> None:
        assert self.spec.sweep is not None
        for mark in self.runs.marks(number):
            value = mark.metrics.get(self.spec.sweep.metric)
            if value is not None and 0 < mark.step <= mark.steps:
                percent = max(1, round(WHOLE * mark.step / mark.steps))
                self.study.see(number, percent, value)
                run.seen = max(run.seen, percent)

    def _finished(self, number: int, run: _Run, status: Status) -> _Ending | None:
        assert self.spec.sweep is not None
        assert run.handle is not None
        outcome = self.runs.folder_of(number).outcome()
        if outcome is not None:
            metrics = {"loss": outcome["last_loss"], **outcome["metrics"]}
            self.study.note(number, metrics=metrics, steps=outcome["steps"])
            value = metrics.get(self.spec.sweep.metric)
            if value is None:
                names = ", ".join(sorted(metrics))
                reason = f"it measured no {self.spec.sweep.metric!r}; there are {names}"
                return _Ending("failed", reason=reason)
            if not math.isfinite(value):
                return _Ending("failed", reason=f"{self.spec.sweep.metric} is {value!r}")
            return _Ending("complete", value=value)
        notes = self.study.trial(number).notes
        lost = int(notes.get("lost", 0)) + (status.reason in GONE)
        if notes.get("pruned"):
            return _Ending("pruned")
        if status.reason in GONE and lost <= MOST_LOST:
            self.at_work[number] = _Run(run.attempt + 1)
            self.study.note(number, attempt=run.attempt + 1, lost=lost)
            return None
        return _Ending("failed", reason=self.runs.said(run.handle))

    def _end(self, number: int, ending: _Ending) -> None:
        reason = ending.reason
        if reason is not None:
            self.study.note(number, reason=reason)
        self.runs.tidy(number)
        ended = self.study.end(number, ending.state, ending.value)
        del self.at_work[number]
        trials = tuple(self.study.trials())
        self.around.tell(Told(trials, self.study.most, self.study.best(), ended))
        failed = [each for each in trials if each.state == "failed"]
        if len(failed) >= ALL_FAILED and len(failed) + len(self.at_work) == len(trials):
            self.stop()
            raise SweepFailed(f"All of {len(failed)} trials failed, the last one thus: {reason}")


def _ended(folder: Path, study: Study, sweeping: _Sweeping) -> Swept:
    best, trials = study.best(), tuple(study.trials())
    if best is None:
        last = next((each for each in reversed(trials) if each.state == "failed"), None)
        why = "all were ended early" if last is None else str(last.notes.get("reason"))
        raise SweepFailed(f"None of {len(trials)} trials came to its end: {why}")
    lock = sweeping.lock(best)
    write_json(folder / BEST, lock.as_json())
    return Swept(trials, best, lock, folder / BEST)


def as_values(found: Swept) -> dict[str, object]:
    """Return what a sweep found as JSON's values."""
    return {
        "best": asdict(found.best),
        "trials": [asdict(each) for each in found.trials],
        "lock": found.lock.as_json(),
        "digest": found.lock.digest,
        "path": str(found.path),
    }


def _check_metric(spec: FineTuning) -> None:
    assert spec.sweep is not None
    if spec.sweep.metric.startswith("eval_") and spec.data.eval is None:
        raise InvalidRequest(
            f"sweep.metric: {spec.sweep.metric!r} is measured on data.eval, which is missing",
            parameter="spec",
        )


def _every(plain: FineTuning, lock: Lock) -> int:
    """Return the percent of a run between two measurements."""
    steps = trainer.batches_of(lock).steps
    schedule = plain.schedule
    every = schedule.eval_every_steps or schedule.saving.every_steps or steps / trainer.CHECKPOINTS
    if plain.data.eval is None:
        every = schedule.log_every_steps
    return min(WHOLE, max(1, round(WHOLE * every / steps)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Another process sweeps in {str(folder)!r}; wait for it, or give another folder"
            ) from None
        yield
