"""Tells a process from another one that got the same number later."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one machine since its last start; no other is ever equal to it."""

    machine: str
    pid: int
    started: int
    """Clock ticks since boot; 0 where the system does not tell."""

    def __str__(self) -> str:
        return f"{self.machine}|{self.pid}|{self.started}"

    @classmethod
    def parse(cls, text: str) -> Process:
        """Read what `str` wrote."""
        machine, pid, started = text.rsplit("|", 2)
        return cls(machine, int(pid), int(started))

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this machine, as far as this process can see it."""
        return self.machine == this_machine()

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended; `False` where nobody here can tell."""
        return self.is_here and self.started > 0 and find(self.pid) != self


def this_process() -> Process:
    return find(os.getpid()) or Process(this_machine(), os.getpid(), 0)


def find(pid: int) -> Process | None:
    """Return the process that has this number now; one that only waits to be reaped is gone."""
    fields = _fields(pid)
    if fields is None or fields[0] in {"Z", "X"}:
        return None
    return Process(this_machine(), pid, int(fields[19]))


def reap(process: Process) -> None:
    """Let go of a child of this process that has ended; the kernel keeps its number until then."""
    fields = _fields(process.pid)
    if fields and fields[0] == "Z" and int(fields[19]) == process.started:
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def session_members(session: int) -> list[int]:
    """Return the running processes of a session, which is named after the pid of its first."""
    members = []
    for entry in PROC.iterdir():
        fields = _fields(int(entry.name)) if entry.name.isdigit() else None
        if fields and int(fields[3]) == session and fields[0] not in {"Z", "X"}:
            members.append(int(entry.name))
    return members


def this_machine() -> str:
    """Return host, boot and process namespace: within one of these, numbers mean the same."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(PROC / "self/ns/pid")
    except OSError:
        boot, namespace = "", ""
    return f"{os.uname().nodename}/{boot}/{namespace}"


def _fields(pid: int) -> list[str] | None:
    """Return /proc/PID/stat from the state on: state, parent, group, session, ..."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before it may hold spaces and brackets of its own.
    return stat.rpartition(")")[2].split()
