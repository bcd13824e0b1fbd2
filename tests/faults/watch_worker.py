"""A process that looks at a monitor's windows, and is killed where one of them is stored."""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.database.engine import Database
from infra.settings import load_settings
from monitoring.watch_results import WatchResults
from service.wiring import Components
from service.work import watching


class Killed(WatchResults):
    """Results of which the one of a number kills the process, `before` or `after` it is stored."""

    def __init__(self, database: Database, *, number: int, moment: str) -> None:
        super().__init__(database)
        self.left = number
        self.moment = moment

    def add(self, result: Any, **how: Any) -> None:
        self.left -= 1
        if not self.left and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().add(result, **how)
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, now: datetime, *, number: int, moment: str) -> None:
    """Look once; the monitors are told by the environment."""
    parts = Components(load_settings(data_folder=folder))
    results = Killed(parts.database, number=number, moment=moment)
    watching.stored = lambda _: results
    watching.look(parts, now=now)


if __name__ == "__main__":
    at = datetime.fromisoformat(sys.argv[2])
    main(Path(sys.argv[1]), at, number=int(sys.argv[3]), moment=sys.argv[4])
