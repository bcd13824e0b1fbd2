"""A worker process for the fault tests; it is killed, stopped and woken from outside."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, event, text

from infra.artifacts import aliases
from infra.database.engine import Database
from infra.errors import Conflict
from infra.jobs import external
from infra.jobs.admission import Capacity
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.definitions import Registry, Resources, Retries
from infra.jobs.worker import Timing, run_worker

PATIENT = Retries(attempts=50, first_delay_seconds=0.05, crashes=10_000)
TIMING = Timing(poll_seconds=0.1, beat_seconds=0.2, lease_seconds=2.5)
ALIAS = aliases.Pointer.of("adapter/support", "production")


class Functions:
    """The jobs of the fault tests.

    Args:
        database: of the queue.
        folder: where they leave what a test looks at, and look for what it says.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder

    def effects(self, attempt: Attempt, *, number: int) -> int:
        """One idempotent step, then two effects in the database."""

        def write_file() -> str:
            part = self.folder / f"{number}.part-{attempt.fence}"
            part.write_text(str(number), encoding="ascii")
            part.replace(self.folder / f"{number}.file")
            return part.name

        attempt.step("file", write_file)
        for part in ("first", "second"):
            attempt.transaction(part, partial(_effect, number=number, part=part))
            time.sleep(0.01)
        return number

    def fragile(self, attempt: Attempt, *, number: int, point: str) -> None:
        """Kills its own process at one point around a transaction, the first time."""
        mark = self.folder / f"{number}.{point}"
        first = not mark.exists()
        mark.touch()

        def write(connection: Connection) -> None:
            _effect(connection, number=number, part=point)
            if first and point == "written":
                _die()
            if first and point == "committed":  # and not yet recorded by DBOS
                event.listen(connection.engine.pool, "checkin", _die)

        attempt.transaction("effect", write)
        if first:
            _die()

    def publish(self, attempt: Attempt) -> str:
        """Publishes with its fence; the first attempt does so only when it is told to go on."""
        attempt.step("prepare", lambda: None)
        if not (self.folder / "reached").exists():
            (self.folder / "reached.part").write_text(str(os.getpid()), encoding="ascii")
            (self.folder / "reached.part").replace(self.folder / "reached")
            while not (self.folder / "go").exists():
                time.sleep(0.02)
            self._say_what_a_zombie_can_do(attempt)
        digest = f"sha256:{attempt.fence}"
        attempt.transaction("publish", partial(_move, attempt=attempt, digest=digest))
        part = f"fence {attempt.fence}"
        return attempt.transaction("effect", partial(_effect, number=0, part=part))

    def train(self, attempt: Attempt) -> int:
        """Watches a program that takes its time."""
        command = external.Command(
            ["sh", "-c", "echo once >> count; while [ ! -e finish ]; do sleep 0.05; done; exit 6"],
            folder=self.folder,
        )
        return external.run(attempt, command, state=self.folder / "state", poll_seconds=0.05)

    def _say_what_a_zombie_can_do(self, attempt: Attempt) -> None:
        """Try every way to publish, and write down how each was refused."""
        zombie = partial(_effect, number=0, part="zombie")
        refused = []
        try:
            with self.database.write() as connection:
                _move(connection, attempt=attempt, digest="sha256:zombie")
        except Conflict:
            refused.append("alias")
        try:
            with self.database.write() as connection:
                zombie(connection)
                attempt.guard(connection)
        except Interrupted as interruption:
            refused.append(f"guard {interruption.reason}")
        for name, call in (
            ("progress", lambda: attempt.progress(0.5, "zombie")),
            ("transaction", lambda: attempt.transaction("publish", zombie)),
            ("step", lambda: attempt.step("publish", lambda: "zombie")),
        ):
            try:
                call()
            except Interrupted as interruption:
                refused.append(f"{name} {interruption.reason}")
        (self.folder / "refused.part").write_text("\n".join(refused), encoding="utf-8")
        (self.folder / "refused.part").replace(self.folder / "refused")


def _effect(connection: Connection, *, number: int, part: str) -> str:
    connection.execute(
        text("INSERT INTO effect (number, part) VALUES (:number, :part)"),
        {"number": number, "part": part},
    )
    return part


def _move(connection: Connection, *, attempt: Attempt, digest: str) -> None:
    guard = aliases.Guard(token=attempt.fence)
    aliases.move(connection, ALIAS, to=digest, guard=guard, now=datetime.now(UTC))


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(database_url: str, folder: str, slots: str) -> None:
    functions = Functions(Database(database_url), Path(folder))
    registry = Registry()
    for function in (functions.effects, functions.fragile, functions.publish, functions.train):
        registry.job(function.__name__, retries=PATIENT)(function)
    capacity = Capacity(Resources(cpu=100), int(slots))
    run_worker(database_url, registry, capacity=capacity, timing=TIMING)


if __name__ == "__main__":
    main(*sys.argv[1:])
