"""A worker that launches programs of this machine, and kills itself where a test wants it to."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from infra.jobs.admission import Capacity
from infra.jobs.definitions import Registry, Resources
from infra.jobs.worker import Timing, run_worker
from training.launchers import Handle, Spec
from training.launchers.local import Local
from training.launching import register

TIMING = Timing(poll_seconds=0.1, beat_seconds=0.2, lease_seconds=2.5)


class Fragile(Local):
    """Dies once at a point around the launch, if a file names it."""

    folder: Path

    def submit(self, spec: Spec, *, key: str) -> Handle:
        self._die("before")
        handle = super().submit(spec, key=key)
        self._die("launched")  # and its handle is written down nowhere
        return handle

    def _die(self, point: str) -> None:
        wish = self.folder / f"die-{point}"
        if wish.exists():
            wish.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def main(database_url: str, folder: str) -> None:
    launcher = Fragile(Path(folder) / "runs", ())
    launcher.folder = Path(folder)
    registry = Registry()
    register(registry, {"local": launcher}.__getitem__, poll_seconds=0.05)
    run_worker(database_url, registry, capacity=Capacity(Resources(cpu=100), 4), timing=TIMING)


if __name__ == "__main__":
    main(*sys.argv[1:])
