"""Starts one real vLLM on the CPU for all tests of a run, whichever process they run in."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.engine_settings import EngineProcess
from service.supervision import command, guard
from tiny_llm import write_llm

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venvs" / "vllm" / "bin" / "python"
INSTALLED = ROOT / ".venvs" / "vllm" / "engine.done"
"""Written last: without it an install was cut short, as by a full disk."""
MODEL = "tiny"
KEY = "key-of-the-tests"
START_SECONDS = 300.0
FLAGS: dict[str, str | None] = {
    "--enforce-eager": None,
    "--max-num-seqs": "64",
    "--enable-auto-tool-choice": None,
    "--tool-call-parser": "hermes",
    "--enable-prompt-tokens-details": None,
    # Random weights would write white space for ever.
    "--structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
}
ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # the first request for logprobs would compile for 25 seconds
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
}
VECTORS: dict[str, str | None] = {
    "--enforce-eager": None,
    "--max-num-seqs": "16",
    "--runner": "pooling",
    "--convert": "embed",
    # Of its vectors shorter ones may be asked for.
    "--hf-overrides": '{"is_matryoshka": true}',
}
"""Flags of a server that makes vectors of the model's, and ranks by them."""
# Ends the server when its owner is gone, however that ended; nobody has to remember to.
WATCH = r"""
owner=$1; pid=$2; shift 2
lives() { kill -0 "$1" 2> /dev/null && ! grep -q "^State:.Z" "/proc/$1/status" 2> /dev/null; }
( setsid "$@" & child=$!; echo "$child" > "$pid"
  while lives "$owner" && lives "$child"; do sleep 0.5; done
  kill "$child" 2> /dev/null; sleep 5; kill -9 -- "-$child" 2> /dev/null ) &
"""


class Unavailable(Exception):
    """There is no vLLM here; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A server that answers."""

    url: str
    folder: str
    """Of the model's files."""
    pid: int
    model: str = MODEL
    key: str = KEY

    def gauge(self, name: str) -> float:
        """Return the sum of a series of `/metrics`, such as `vllm:num_requests_running`."""
        found = re.findall(
            rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$",
            self.call("/metrics").decode(),
            flags=re.MULTILINE,
        )
        if not found:
            raise KeyError(name)
        return sum(map(float, found))

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Use it beside others, or alone: then wait for them to be done, and they wait."""
        with (Path(self.folder).parent / "turn").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def running(self) -> float:
        """Return how many requests it works on."""
        return self.gauge("vllm:num_requests_running")

    def waiting(self) -> float:
        """Return how many requests wait in its queue."""
        return self.gauge("vllm:num_requests_waiting")

    def seconds_until(
        self, condition: Callable[[VllmServer], bool], *, limit_seconds: float = 30.0
    ) -> float:
        """Return how long it takes until `condition(server)` holds, looked at every 5 ms."""
        started = time.monotonic()
        while not condition(self):
            if time.monotonic() - started > limit_seconds:
                raise TimeoutError(f"It does not hold after {limit_seconds} seconds")
            time.sleep(0.005)
        return time.monotonic() - started

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return what a request is answered with, parsed where it is JSON."""
        answer = self.call(path, json.dumps(body).encode())
        return json.loads(answer) if answer.startswith(b"{") else answer.decode()

    def call(self, path: str, body: bytes | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())


def shared_server(folder: Path, *, owner: int) -> VllmServer:
    """Return the server of a test run, started by whoever asks first.

    Args:
        folder: that all processes of the run share.
        owner: the process that the server ends with.
    """
    _require_vllm()
    folder.mkdir(exist_ok=True)
    known = folder / "server.json"
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if known.exists():
            return VllmServer(**json.loads(known.read_text(encoding="utf-8")))
        engine = EngineProcess(
            model=str(make_model(folder / "model")),
            python=str(PYTHON),
            dtype="float32",
            lora=True,
            max_lora_rank=8,
            max_loras=4,
            max_model_len=2048,
            flags=_words(FLAGS),
            environment=ENVIRONMENT,
        )
        server = _start(folder, owner, engine)
        known.write_text(json.dumps(asdict(server)), encoding="utf-8")
    return server


@contextmanager
def vectors_server(folder: Path) -> Iterator[VllmServer]:
    """Run a server of its own that makes vectors, until the block ends."""
    _require_vllm()
    engine = EngineProcess(
        model=str(make_model(folder / "model")),
        python=str(PYTHON),
        dtype="float32",
        max_model_len=512,
        flags=_words(VECTORS),
        environment=ENVIRONMENT,
    )
    server = _start(folder, os.getpid(), engine)
    try:
        yield server
    finally:
        os.kill(server.pid, signal.SIGTERM)


def run_watched(
    arguments: Sequence[str], *, owner: int, pid: Path, env: Mapping[str, str], log: Path
) -> None:
    """Start a process that ends soon after its owner does, and write its number to `pid`.

    What watches it is in a session of its own: whoever ends the owner's whole group, by Ctrl-C or
    `timeout`, does not end the watcher first.
    """
    with log.open("wb") as output:
        subprocess.run(
            ["/bin/sh", "-c", WATCH, "sh", str(owner), str(pid), *arguments],
            env=env,
            cwd=pid.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            check=True,
        )


def make_model(folder: Path) -> Path:
    """Write the model that the server holds."""
    return write_llm(folder, text=(ROOT / "LICENSE").read_text(encoding="utf-8"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _require_vllm() -> None:
    if not INSTALLED.exists():
        raise Unavailable("no vLLM here; `make vllm` installs it")


def _words(flags: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(part for flag in flags.items() for part in flag if part is not None)


def _start(folder: Path, owner: int, engine: EngineProcess) -> VllmServer:
    """Start it with the command line and the variables of an engine that is supervised."""
    port = free_port()
    (folder / "guard").mkdir()
    shutil.copyfile(guard.__file__, folder / "guard" / f"{command.GUARD}.py")
    arguments = command.arguments(engine, MODEL, port=port)
    variables = command.environment(engine, index=0, key=KEY, guards=folder / "guard")
    pid, log = folder / "pid", folder / "output.log"
    run_watched(arguments, owner=owner, pid=pid, env=variables, log=log)
    server = VllmServer(f"http://127.0.0.1:{port}", engine.model, read_number(pid))
    _wait(server, log)
    return server


def read_number(path: Path) -> int:
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text(encoding="ascii").strip()):
        if time.monotonic() > deadline:
            raise TimeoutError(str(path))
        time.sleep(0.01)
    return int(path.read_text(encoding="ascii"))


def _wait(server: VllmServer, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.call("/health")
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline or not Path(f"/proc/{server.pid}").exists():
                tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise RuntimeError(f"vLLM did not start:\n{tail}") from None
            time.sleep(0.2)
