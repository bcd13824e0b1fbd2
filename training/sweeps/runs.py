"""The runs of a sweep's trials: launched, found again after a crash, followed while they train."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from infra.errors import NotFound
from training.accelerators import gpus_for
from training.launchers import Handle, Launcher, Spec, Status, handle_for
from training.launchers.local import NAME as LOCAL
from training.lock import Lock
from training.measurements import Mark
from training.run_folder import RunFolder, write_json
from training.spec import FineTuning, as_json
from training.specification.delivery import Evaluate
from training.sweeps import space
from training.sweeps.study import Trial

WANTED = "wanted.json"
GRACE_SECONDS = 20.0
NAME_CHARACTERS = 56
"""Of a specification's name, in that of a trial."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What runs programs."""

    launcher: Launcher
    program: tuple[str, ...]
    """What stands for `ragstone` on its machines."""
    working_folder: Path
    """With the settings."""
    secrets: tuple[str, ...] = ()
    """Names of variables that are passed on."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one sweep."""

    spec: FineTuning
    folder: Path
    token: str
    """What no other sweep has: its runs are known to launchers by it."""
    machinery: Machinery

    def folder_of(self, number: int) -> RunFolder:
        return RunFolder(self.folder / "trials" / f"{number:04}")

    def begin(self, trial: Trial, attempt: int, lock: Callable[[], Lock]) -> Handle:
        """Launch the run of a trial, or find the one that was launched before.

        Raises:
            InvalidRequest: its specification cannot be carried out.
            NotReady: there is no room for it now.
        """
        launcher, key = self.machinery.launcher, self._key(trial.number, attempt)
        try:
            return launcher.reattach(handle_for(launcher.name, key))
        except NotFound:
            wanted = self.folder_of(trial.number).path / WANTED
            write_json(wanted, self._run_lock(trial, lock()).as_json())
            return launcher.submit(self._program(trial.number, wanted), key=key)

    def status(self, handle: Handle) -> Status:
        return self.machinery.launcher.poll(handle)

    def marks(self, number: int) -> list[Mark]:
        """Return what the run of a trial has told so far."""
        return self.folder_of(number).measurements.read()

    def said(self, handle: Handle) -> str:
        """Return the last line that a run wrote: of one that failed, why."""
        lines = self.machinery.launcher.logs(handle).text.strip().splitlines()
        own = [line for line in lines if line.startswith("ragstone:")]
        return (own or lines or ["it wrote nothing"])[-1].removeprefix("ragstone: ")

    def stop(self, handle: Handle) -> None:
        self.machinery.launcher.cancel(handle, grace_seconds=GRACE_SECONDS)

    def tidy(self, number: int) -> None:
        """Remove checkpoints, which nobody goes on from any more."""
        shutil.rmtree(self.folder_of(number).checkpoints, ignore_errors=True)

    def _key(self, number: int, attempt: int) -> str:
        return f"{self.token}/{self.folder}/{number}/{attempt}"

    def _run_lock(self, trial: Trial, lock: Lock) -> Lock:
        """Return the lock of a trial's run: it registers nothing and always tells what it found."""
        whole = space.with_values(self.spec, trial.values)
        run = whole.model_copy(
            update={
                "name": f"{whole.name[:NAME_CHARACTERS]}-{trial.number}",
                "register_as": None,
                "compress": None,
                "serve": None,
                "evaluate": Evaluate(max_eval_loss_ratio=None),
            }
        )
        return replace(lock, name=run.name, spec=as_json(run))

    def _program(self, number: int, wanted: Path) -> Spec:
        parallelism, runtime = self.spec.parallelism, self.spec.runtime
        folder = str(self.folder_of(number).path)
        gpus = gpus_for(self.spec, self.machinery.launcher.name)
        memory = 0 if runtime.node_memory_gib is None else int(runtime.node_memory_gib * 2**30)
        return Spec(
            command=(
                *self.machinery.program,
                *("train", "rerun", str(wanted), "--folder", folder, "--no-smoke", "--json"),
            ),
            folder=str(self.machinery.working_folder),
            name=f"{self.spec.name[:NAME_CHARACTERS]}-{number}",
            environment={**self._threads(gpus), **runtime.environment},
            secrets=tuple(dict.fromkeys((*self.machinery.secrets, *runtime.secrets))),
            nodes=parallelism.nodes,
            processes_per_node=parallelism.devices_per_node,
            gpus=gpus,
            cpus=runtime.cpus_per_node,
            memory_bytes=memory,
        )

    def _threads(self, gpus: int) -> dict[str, str]:
        """Share the cores of this machine out among trials that train on them."""
        assert self.spec.sweep is not None
        if gpus or self.machinery.launcher.name != LOCAL:
            return {}
        processes = self.spec.sweep.parallel * self.spec.parallelism.devices_per_node
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
