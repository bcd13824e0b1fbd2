"""The study of a sweep: what was tried, what came out, what is tried next; kept in a file."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from infra.errors import Conflict
from infra.plugins import require
from infra.security import new_id
from training import locking
from training.spec import FineTuning
from training.specification.sweep import Sweep
from training.sweeps import space

JOURNAL = "study.log"
OF, DIGESTS, TOKEN = "of", "digests", "token"
"""Under these names the study knows which sweep it is of, the digests of all that the sweep names,
and what no other sweep has, not even one of the same words in the same folder."""
WHOLE = 100
"""Shares of a run by which its trials are compared while they run, in percent: trials may have
different numbers of steps."""
EXTENDED = ("trials", "parallel")
"""Keys of a sweep that may be changed when it is gone on with."""

State = Literal["running", "complete", "pruned", "failed"]
STATES: Mapping[str, State] = {
    "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned",
    "FAIL": "failed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known of one trial."""

    number: int
    state: State
    values: dict[str, Any]
    """By the dotted key, as they stand in a specification."""
    value: float | None
    """Of the metric; of a pruned trial the last that was seen."""
    seen: dict[int, float]
    """Of the metric, by the percent of the run that was done."""
    seconds: float | None
    notes: dict[str, Any]
    """`reason` of a failure, `metrics` and `steps` of a run, and what the sweep keeps."""


class Study:
    """Asks for trials and is told of them.

    Args:
        spec: with its sweep.
        folder: of the sweep; a study that is there is gone on with.
        every: percent of a run between two measurements.
        digests: of all that the sweep names, as a lock has them.

    Raises:
        Conflict: the folder is of another sweep, or of one of other rows, or another base.
    """

    def __init__(
        self, spec: FineTuning, folder: Path, *, every: int, digests: Mapping[str, str]
    ) -> None:
        assert spec.sweep is not None
        optuna = require("optuna", extra="finetune")
        optuna.logging.disable_default_handler()
        self._optuna, self._spec, self._sweep = optuna, spec, spec.sweep
        self._distributions = space.distributions(spec)
        journal = optuna.storages.journal
        _end_at_a_line(folder / JOURNAL)
        path = str(folder / JOURNAL)
        backend = journal.JournalFileBackend(path, lock_obj=journal.JournalFileOpenLock(path))
        storage = optuna.storages.JournalStorage(backend)
        self._study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            direction=spec.sweep.direction,
            pruner=_pruner(optuna, spec.sweep, every=every),
            load_if_exists=True,
        )
        # Drawn anew from where it is gone on with: the same seed would draw the same again.
        self._study.sampler = _sampler(
            optuna, spec, seed=(spec.seed + len(self._study.get_trials(deepcopy=False))) % 2**32
        )
        if self._kept(OF, identity(spec)) != identity(spec):
            raise Conflict(f"{str(folder)!r} is of another sweep; give another folder")
        locking.check_same(self._kept(DIGESTS, dict(digests)), digests)
        self.token = str(self._kept(TOKEN, new_id("sweep-")))
        """What no other study has."""

    @property
    def most(self) -> int:
        """Trials in all."""
        if self._sweep.sampler != "grid":
            return self._sweep.trials
        return min(self._sweep.trials, space.grid_size(self._spec))

    def trials(self) -> list[Trial]:
        """Return all trials so far, by their number."""
        found = self._study.get_trials(deepcopy=False)
        return [self._trial(each) for each in found if each.state.name != "WAITING"]

    def ask(self) -> Trial:
        """Begin a trial."""
        if self._sweep.sampler == "grid" and not self._is_one_waiting():
            self._study.enqueue_trial(self._next_point())
        asked = self._study.ask(self._distributions)
        return self.trial(asked.number)

    def running(self) -> list[Trial]:
        """Return the trials that were begun and have not ended, with all of their values.

        Of one that a process was killed over while it asked, the values that are missing are drawn.
        """
        found = [each.number for each in self.trials() if each.state == "running"]
        for number in found:
            handle = self._handle(number)
            for key, distribution in self._distributions.items():
                handle._suggest(key, distribution)
        return [self.trial(number) for number in found]

    def trial(self, number: int) -> Trial:
        return self._trial(self._study.get_trials(deepcopy=False)[number])

    def note(self, number: int, **notes: Any) -> None:
        """Keep something with a trial."""
        trial = self._handle(number)
        for name, value in notes.items():
            trial.set_user_attr(name, value)

    def see(self, number: int, percent: int, value: float) -> None:
        """Take a measurement of a trial that runs; the first of each percent counts."""
        if percent not in self.trial(number).seen:
            self._handle(number).report(value, percent)

    def is_hopeless(self, number: int) -> bool:
        """Whether others were so much better at the same time that it is not worth its end."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna's, of what it calls experimental
            return bool(self._handle(number).should_prune())

    def end(self, number: int, state: State, value: float | None = None) -> Trial:
        """Take how a trial ended."""
        states = self._optuna.trial.TrialState
        ended = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        self._study.tell(number, value, state=ended[state])
        return self.trial(number)

    def best(self) -> Trial | None:
        """Return the best of the trials that ran to their end; `None` while none has."""
        done = [each for each in self.trials() if each.state == "complete"]
        sign = 1 if self._sweep.direction == "minimize" else -1
        return min(done, key=lambda each: sign * (each.value or 0.0), default=None)

    def _kept(self, name: str, value: Any) -> Any:
        """Return what the study was given under a name first, which may be now."""
        if name not in self._study.user_attrs:
            self._study.set_user_attr(name, value)
        return self._study.user_attrs[name]

    def _is_one_waiting(self) -> bool:
        """Whether a process was killed between the two steps of asking for a point of a grid."""
        return any(each.state.name == "WAITING" for each in self._study.get_trials(deepcopy=False))

    def _next_point(self) -> dict[str, Any]:
        """Return a point of the grid that was not tried, in an order that depends on the seed."""
        tried = [each.params for each in self._study.get_trials(deepcopy=False) if each.params]
        points = space.grid(self._spec)
        random.Random(self._spec.seed).shuffle(points)
        return next(point for point in points if point not in tried)

    def _handle(self, number: int) -> Any:
        frozen = self._study.get_trials(deepcopy=False)[number]
        return self._optuna.trial.Trial(self._study, frozen._trial_id)

    def _trial(self, frozen: Any) -> Trial:
        duration = frozen.duration
        return Trial(
            number=frozen.number,
            state=STATES[frozen.state.name],
            values=space.told_by(self._spec, frozen.params),
            value=frozen.value,
            seen=dict(frozen.intermediate_values),
            seconds=None if duration is None else duration.total_seconds(),
            notes=dict(frozen.user_attrs),
        )


def _end_at_a_line(path: Path) -> None:
    """Take away what a process that was killed had begun to write."""
    if path.is_file():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            path.write_bytes(data[: data.rfind(b"\n") + 1])


def identity(spec: FineTuning) -> str:
    """Return a digest of what a sweep is of, whatever the number of its trials."""
    assert spec.sweep is not None
    plain = dict.fromkeys(EXTENDED, 1)
    return spec.model_copy(update={"sweep": spec.sweep.model_copy(update=plain)}).digest


def _sampler(optuna: Any, spec: FineTuning, *, seed: int) -> Any:
    assert spec.sweep is not None
    if spec.sweep.sampler != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental
        return optuna.samplers.TPESampler(seed=seed, constant_liar=spec.sweep.parallel > 1)


def _pruner(optuna: Any, sweep: Sweep, *, every: int) -> Any:
    if sweep.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=every, max_resource=WHOLE)
    if sweep.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3)
    return optuna.pruners.NopPruner()
