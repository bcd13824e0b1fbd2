"""Runs one program of this machine within its limits, and leaves nothing of it behind."""

# Started by its path, in Python's isolated mode: nothing beyond the standard library is there.
from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
MARK = "LAUNCHED_RUN"
"""A variable that all processes of a run inherit, those in sessions of their own as well."""
WATCH_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 3600.0
LEFTOVER_SECONDS = 5.0
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def members(run_id: str, *, session: int) -> set[int]:
    """Return the living processes of a run: of its session, or with its mark in another one."""
    mark = f"{MARK}={run_id}".encode()
    found = set()
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended meanwhile, or is another user's
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] in {b"Z", b"X"}:
                continue
            if int(fields[3]) == session or mark in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found


def memory_bytes(pids: set[int]) -> int:
    """Return the memory that processes hold, what they share counted each time."""
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError, ValueError):
            pages = (PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]
            total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total


def proportional_bytes(pids: set[int]) -> int:
    """Return the memory that processes hold, what they share divided among them; this is slow."""
    total = 0
    for pid in pids:
        with suppress(OSError, IndexError, ValueError):
            text = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
            total += 1024 * int(text.partition("\nPss:")[2].split()[0])
    return total


def kernel_kills() -> int:
    """Return how often the kernel has killed a process for want of memory since it started."""
    with suppress(OSError, ValueError):
        for line in (PROC / "vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def end(processes: Callable[[], set[int]], *, grace_seconds: float) -> None:
    """Ask processes to end, wait, then kill those that are left."""
    deadline = time.monotonic() + grace_seconds
    _signal(processes(), signal.SIGTERM)
    while processes() and time.monotonic() < deadline:
        time.sleep(0.02)
    while left := processes():  # a process may start another between the look and the kill
        _signal(left, signal.SIGKILL)
        time.sleep(0.02)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Supervisor:
    """Watches one program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._reason: str | None = None
        # The shell above us carries the mark as well, and writes down how we ended.
        self._spared = {os.getpid(), os.getppid()}

    def run(self, command: list[str]) -> int:
        """Run the program to its end; the code is negative for a signal."""
        kills = kernel_kills()
        try:
            # The locks of its GPUs are inherited, and held as long as any process of it lives.
            child = subprocess.Popen(command, close_fds=False)
        except FileNotFoundError as error:
            return self._refuse(error, NOT_FOUND)
        except OSError as error:
            return self._refuse(error, NOT_EXECUTABLE)
        code = self._watch(child)
        end(self._members, grace_seconds=min(LEFTOVER_SECONDS, self._options.grace))
        if self._reason is None and code == -signal.SIGKILL and kernel_kills() > kills:
            self._reason = "oom"
        return code

    @property
    def reason(self) -> str | None:
        return self._reason

    def _refuse(self, error: OSError, code: int) -> int:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201 its output is the log
        return code

    def _watch(self, child: subprocess.Popen[bytes]) -> int:
        due = time.monotonic() + self._options.seconds
        ending = os.pidfd_open(child.pid)
        while child.poll() is None:
            left = due - time.monotonic()
            if left <= 0:
                self._reason = "timeout"
                end(self._members, grace_seconds=self._options.grace)
            elif self._takes_too_much():
                self._reason = "oom"
                end(self._members, grace_seconds=0)
            pause = min(left, WATCH_SECONDS if self._options.memory else LONGEST_WAIT_SECONDS)
            select.select([ending], [], [], max(0.0, pause))
        return child.returncode

    def _members(self) -> set[int]:
        return members(self._options.run, session=os.getsid(0)) - self._spared

    def _takes_too_much(self) -> bool:
        limit: int = self._options.memory
        if not limit or memory_bytes(pids := self._members()) <= limit:
            return False
        return proportional_bytes(pids) > limit


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    parser.add_argument("--report", required=True, type=Path)
    parser.add_argument("--seconds", default=float("inf"), type=float)
    parser.add_argument("--memory", default=0, type=int)
    parser.add_argument("--grace", default=0.0, type=float)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    # A request to end goes to all processes at once; ours is to see what the program makes of it.
    # A handler, unlike SIG_IGN, is not inherited.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    supervisor = Supervisor(options)
    code = supervisor.run(options.command[1:])
    part = options.report.with_suffix(".part")
    part.write_text(json.dumps({"reason": supervisor.reason}), encoding="ascii")
    part.replace(options.report)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
