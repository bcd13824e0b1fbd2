"""Machines that are lost: all processes of a run are killed, those that watch over it as well."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def running(*words: str) -> dict[int, str]:
    """The command lines that have all of these words, of this machine's processes."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if all(word in line for word in words):
                found[int(entry.name)] = line
    return found


def lose(*words: str) -> int:
    """Kill those processes, parents first, so that nobody writes down how others ended."""
    killed = set()
    while found := running(*words):
        for pid in sorted(found):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    return len(killed)
