"""The program that keeps an engine's replicas running: `python -m` this, with its folder."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from infra.jobs.processes import this_process
from service.supervision.replica import Replica
from service.supervision.state import EngineState, Plan, read_plan, write_state

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs replicas side by side until it is asked to end."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._replicas = [
            Replica(plan, index, folder=folder, changed=self._write)
            for index in range(plan.engine.replicas)
        ]
        self._state = EngineState(
            plan.name, str(this_process()), [replica.state for replica in self._replicas]
        )

    async def run(self) -> None:
        """Return once every replica has stopped."""
        self._write()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(replica.keep())
        logger.info("all replicas have stopped")

    def _stop(self) -> None:
        logger.info("stopping")
        for replica in self._replicas:
            replica.stop()

    def _write(self) -> None:
        try:
            write_state(self._folder, self._state)
        except OSError as error:  # a full disk is no reason to end an engine
            logger.error("the state cannot be written: %s", error)


def main(folder: Path) -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    supervisor = Supervisor(folder, read_plan(folder))
    asyncio.run(supervisor.run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
