"""One process of an engine: started, watched, started again after a while, drained, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.errors import EngineFailed
from service.supervision import logs, probing
from service.supervision.command import arguments, environment
from service.supervision.state import Phase, Plan, ReplicaState

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
MAX_DOUBLINGS = 10
"""Of the first pause, which is beyond the longest long before: 2.0**1024 is no number."""
SOUND_SECONDS = 60.0
"""A process that was ready for so long is started again at once when it ends."""
LOOK_SECONDS = 0.5
DRAIN_LOOK_SECONDS = 0.2
IDLE_LOOKS = 3
"""In a row without requests, before a draining process is taken to be idle."""


class Replica:
    """Keeps one process running until it is told to stop."""

    def __init__(
        self, plan: Plan, index: int, *, folder: Path, changed: Callable[[], None]
    ) -> None:
        self.state = ReplicaState(index)
        self._plan = plan
        self._engine = plan.engine
        self._folder = folder
        self._changed = changed
        self._stopping = asyncio.Event()
        self._failures = 0

    async def keep(self) -> None:
        """Run the process, and run it again whenever it ends, until `stop`."""
        while not self._stopping.is_set():
            try:
                process = await self._start()
            except OSError as error:
                self._note_failed_start(error)
            else:
                try:
                    await self._watch(process)
                finally:
                    await self._end(process)
            if not self._stopping.is_set():
                await self._pause()
        self._enter("stopped", pid=None)

    def stop(self) -> None:
        self._stopping.set()

    @property
    def log(self) -> Path:
        return log_of(self._folder, self.state.index)

    async def _start(self) -> Process:
        port = self._free_port()
        command = arguments(self._engine, self._plan.name, port=port)
        variables = environment(
            self._engine, index=self.state.index, key=self._plan.key, guards=self._folder / "guard"
        )
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=variables,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self._enter("starting", port=port, pid=process.pid, started=time.time(), ready=None)
        return process

    def _note_failed_start(self, error: OSError) -> None:
        self.state.last_exit = f"cannot be started: {error}"
        self.state.started = self.state.ready = None
        logger.error("replica %d %s", self.state.index, self.state.last_exit)

    async def _watch(self, process: Process) -> None:
        """Return when the process has ended, has to be ended, or is told to stop."""
        heard = time.monotonic()
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not await _happens(ended, stopping, within_seconds=LOOK_SECONDS):
                self._rotate()
                if await asyncio.to_thread(probing.is_healthy, self.state.port):
                    heard = time.monotonic()
                    self._note_health()
                elif self._is_given_up(time.monotonic() - heard):
                    return
            if not ended.done():
                await self._drain(process)
        finally:
            stopping.cancel()

    def _rotate(self) -> None:
        try:
            logs.rotate(self.log, max_bytes=self._engine.log_bytes, kept=self._engine.log_files)
        except OSError as error:  # a full disk is no reason to end an engine
            logger.warning("the log of replica %d stays long: %s", self.state.index, error)

    def _note_health(self) -> None:
        if self.state.phase != "ready":
            logger.info("replica %d answers on port %d", self.state.index, self.state.port)
            self._enter("ready", ready=self.state.ready or time.time())

    def _is_given_up(self, silent_seconds: float) -> bool:
        if self.state.phase == "starting":
            limit = self._engine.start_seconds
        else:
            limit = self._engine.silence_seconds
            if self.state.phase == "ready":
                self._enter("silent")
        if silent_seconds < limit:
            return False
        logger.error("replica %d is silent for %.0f s", self.state.index, silent_seconds)
        _signal(self.state.pid, signal.SIGKILL)
        return True

    async def _drain(self, process: Process) -> None:
        """Wait until it has nothing to do; whoever routes requests sees that it takes no more."""
        was_ready = self.state.phase == "ready"
        self._enter("draining")
        deadline = time.monotonic() + self._engine.drain_seconds
        idle = 0
        while was_ready and idle < IDLE_LOOKS and time.monotonic() < deadline:
            if process.returncode is not None:
                return
            try:
                load = await asyncio.to_thread(probing.load, self.state.port, key=self._plan.key)
            except EngineFailed as error:
                logger.warning("replica %d cannot be drained: %s", self.state.index, error.message)
                return
            idle = idle + 1 if load.is_idle else 0
            await asyncio.sleep(DRAIN_LOOK_SECONDS)

    async def _end(self, process: Process) -> None:
        """Ask the process to end, then kill what is left of its group."""
        pid = process.pid
        _signal(pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._engine.stop_seconds):
                await process.wait()
        _signal(pid, signal.SIGKILL)
        await process.wait()
        self.state.last_exit = _how(process.returncode)
        logger.info("replica %d %s", self.state.index, self.state.last_exit)

    async def _pause(self) -> None:
        ready = self.state.ready
        if ready is not None and time.time() - ready >= SOUND_SECONDS:
            self._failures = 0
        seconds = pause_seconds(self._failures)
        self._failures += 1
        self._enter("waiting", pid=None, restarts=self.state.restarts + 1)
        logger.warning("replica %d is started again in %.0f s", self.state.index, seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _enter(self, phase: Phase, **changes: object) -> None:
        for name, value in {"phase": phase, **changes}.items():
            setattr(self.state, name, value)
        self._changed()

    def _free_port(self) -> int:
        """Return the port it had, if it is still free, so that its address stays the same."""
        chosen = self._engine.port + self.state.index if self._engine.port else 0
        wanted = chosen or self.state.port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                if chosen:  # by the settings: it fails, and its log says why
                    return chosen
                probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port


def pause_seconds(failures: int) -> float:
    """Return how long to wait before a replica that failed so often in a row starts again."""
    doublings = min(failures, MAX_DOUBLINGS)
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**doublings)


def log_of(folder: Path, index: int) -> Path:
    """Return where a replica's output goes."""
    return folder / f"replica-{index}.log"


async def _happens(*events: asyncio.Future[Any], within_seconds: float) -> bool:
    done, _ = await asyncio.wait(
        events, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED
    )
    return bool(done)


def _signal(group: int | None, number: signal.Signals) -> None:
    if group is not None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with {code}"
