"""A process that takes interactions as the service does, until it is killed from outside."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from infra.contracts import Interaction
from infra.database.engine import Database
from monitoring.interaction_queue import Waiting
from monitoring.interaction_spool import InteractionSpool
from monitoring.interactions import Interactions


def main(url: str, folder: Path) -> None:
    """Take so many more at each line that is read; say when they are on disk or in the database."""
    spool = InteractionSpool(folder / "spool")
    waiting = Waiting(spool=spool, flush_seconds=0.02, patience_seconds=0.02)
    log = Interactions(Database(url), waiting=waiting)
    log.start()
    number = 0
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            at = datetime.now(UTC)
            log.add(Interaction(f"answer-{number:05}", "answer", at, "m", "answered", 200))
            number += 1
        while log.waiting:
            time.sleep(0.005)
        print("spooled", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
