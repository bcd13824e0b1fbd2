"""A process that logs, for the tests that run several of them or kill one."""

from __future__ import annotations

import sys
import time

from infra.database.engine import Database
from infra.tracking.environment import Environment
from infra.tracking.tracker import Recording, Tracker

BARE = Environment({"python": "a test"}, ())


def log_many(tracker: Tracker, number: int, *, joined: str) -> None:
    """Log to a run of one's own and to one that all share."""
    with tracker.run("test", name=f"process {number}") as run, tracker.join(joined) as shared:
        for step in range(600):
            run.log({"a": step, "b": -step}, step=step)
            shared.log({f"rank{number}": step, "all": number}, step=step)
            if step % 100 == 0:
                time.sleep(0.02)


def log_until_killed(tracker: Tracker) -> None:
    with tracker.run("test", name="to be killed") as run:
        sys.stdout.write(f"{run.id}\n")
        sys.stdout.flush()
        number = 0
        while True:
            run.log({"n": number}, step=number)
            number += 1
            time.sleep(0.002)


def main(url: str, what: str, *words: str) -> None:
    tracker = Tracker(Database(url), recording=Recording(environment=lambda: BARE))
    if what == "many":
        log_many(tracker, int(words[0]), joined=words[1])
    else:
        log_until_killed(tracker)


if __name__ == "__main__":
    main(*sys.argv[1:])
