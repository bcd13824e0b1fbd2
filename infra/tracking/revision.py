"""The git revision a run's code stands at, and whether it was changed since."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Revision:
    commit: str | None = None
    """`None` outside a repository, before the first commit, or without git."""
    dirty: bool | None = None
    """Whether a file that git follows differs from the commit."""


def read_revision(folder: Path) -> Revision:
    """Return the state of the repository that `folder` is in."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return Revision()
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Revision(commit.strip(), None if changes is None else bool(changes.strip()))


def _git(folder: Path, *words: str) -> str | None:
    # A hook or a monitor that the repository's settings name is not to run because of us.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
