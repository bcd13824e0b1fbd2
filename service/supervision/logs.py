"""Log files of programs that write to them directly: set aside when long, read from their end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

BLOCK_BYTES = 64 * 1024


def rotate(path: Path, *, max_bytes: int, kept: int) -> bool:
    """Set a long file's content aside as `.1`, `.2`, ...; return whether it was long.

    The file is copied and cut, not renamed: the program holds it open, and goes on writing when
    whoever rotates is gone. What it writes between the copy and the cut is lost.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept - 1, 0, -1):
        older = _aside(path, number)
        if older.exists():
            older.replace(_aside(path, number + 1))
    shutil.copyfile(path, _aside(path, 1))
    os.truncate(path, 0)
    return True


def last_lines(path: Path, count: int) -> str:
    """Return the last lines of a file, with those set aside if it has too few."""
    text = b""
    for part in (path, _aside(path, 1)):
        if part.exists():
            text = _tail(part, count) + text
        if text.count(b"\n") >= count:
            break
    return b"".join(text.splitlines(keepends=True)[-count:]).decode("utf-8", errors="replace")


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _tail(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        left = file.seek(0, os.SEEK_END)
        text = b""
        while left and text.count(b"\n") <= count:
            step = min(BLOCK_BYTES, left)
            left = file.seek(left - step)
            text = file.read(step) + text
        return text
