"""What is known of a running engine, in files that whoever runs as the same user can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from infra.engine_settings import EngineProcess
from infra.errors import NotFound

Phase = Literal["starting", "ready", "silent", "waiting", "draining", "stopped"]
"""`silent`: alive and without an answer; `waiting`: ended, and started again in a moment."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the supervisor is told."""

    name: str
    engine: EngineProcess
    key: str
    """Known to the service and the engine alone."""


@dataclass(slots=True)
class ReplicaState:
    """One process of an engine, as its supervisor last saw it."""

    index: int
    phase: Phase = "starting"
    port: int = 0
    pid: int | None = None
    started: float | None = None
    """When the process was started, in seconds since 1970."""
    ready: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    """How the process before this one ended."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(slots=True)
class EngineState:
    """An engine, as its supervisor last saw it."""

    name: str
    supervisor: str
    """Machine, pid and start; see `infra.jobs.processes.Process`."""
    replicas: list[ReplicaState] = field(default_factory=list)


def write_plan(folder: Path, plan: Plan) -> None:
    """Leave the plan for the supervisor, readable for this user alone."""
    held = {
        "name": plan.name,
        "key": plan.key,
        "engine": plan.engine.model_dump(mode="json"),
    }
    _write(folder / "plan.json", held)


def read_plan(folder: Path) -> Plan:
    """Return the plan.

    Raises:
        NotFound: nothing was started in this folder.
    """
    held = _read(folder / "plan.json")
    return Plan(held["name"], EngineProcess.model_validate(held["engine"]), held["key"])


def write_state(folder: Path, state: EngineState) -> None:
    _write(folder / "state.json", asdict(state))


def read_state(folder: Path) -> EngineState:
    """Return what the supervisor last wrote.

    Raises:
        NotFound: it has not written anything yet.
    """
    held = _read(folder / "state.json")
    replicas = [ReplicaState(**replica) for replica in held["replicas"]]
    return EngineState(held["name"], held["supervisor"], replicas)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(json.dumps(value).encode())
    part.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFound("engine's state", str(path)) from None
    return held
