"""Runs a peer in its own environment and process: a job in, a result out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from benchmarks import environments
from benchmarks.options import Options
from benchmarks.peers.job import OFFLINE, Job, Result
from infra.errors import RagstoneError

ROOT = Path(__file__).parent.parent
OURS = ("local_index", "sentence_transformers")
"""Peers that run in the environment we run in ourselves."""


class PeerFailed(RagstoneError):
    """A peer ended without a result; the message holds the end of what it printed."""


class PeerProcess:
    """One peer that stays up, its model loaded, and does one job at a time."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    def do(self, job: Job) -> Result:
        """Do one job; the first also pays for loading the model, which no result counts.

        Raises:
            PeerFailed: the process ended.
        """
        return Result(**self.ask(asdict(job)))

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line of JSON and return the one that comes back."""
        requests, answers = _pipes(self._process)
        try:
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            words = self._log.read_text(encoding="utf-8", errors="replace").strip()
            raise PeerFailed(f"{self.name} failed: {words.rpartition(chr(10))[2] or 'no output'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(name: str, python: Path, options: Options) -> Iterator[PeerProcess]:
    """Start a peer and stop it at the end; its prints go to a log in the scratch folder."""
    log = options.folder / f"{name}.log"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {**OFFLINE, "OMP_NUM_THREADS": str(options.threads)}
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [str(python), "-m", f"benchmarks.peers.{name}"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        )
    try:
        yield PeerProcess(name, process, log)
    finally:
        process.kill()
        for pipe in _pipes(process):
            pipe.close()
        process.wait()


def find(name: str, options: Options) -> Path | None:
    """Return the peer's Python, installing it first where the options say so; None: not there."""
    if name in OURS:
        return Path(sys.executable)
    python = environments.interpreter(name, options.environments)
    if python is None and options.install_peers:
        options.say(f"installing {name}")
        python = environments.install(name, options.environments)
    return python


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if process.stdin is None or process.stdout is None:
        raise PeerFailed("the process was started without pipes")
    return process.stdin, process.stdout
