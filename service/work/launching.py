"""Connects launchers to this process: the operator's options, and the job that watches a run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from infra.jobs.definitions import Registry

if TYPE_CHECKING:
    from service.wiring import Components
    from training.launchers import Launcher

RAGSTONE = (sys.executable, "-P", "-c", "from service.cli import main; main()")
"""Starts this program on this machine; what lies in the working folder is not imported."""

OWN = ("RAGSTONE_", "HF_")
"""Beginnings of variables that this program needs wherever it runs."""


def own_variables() -> tuple[str, ...]:
    """Return the names of those that this process has, for launchers to pass on unwritten."""
    return tuple(sorted(name for name in os.environ if name.startswith(OWN)))


def ragstone(launcher: str) -> tuple[str, ...]:
    """Return what starts this program where a launcher runs it: elsewhere it is on the path."""
    return RAGSTONE if launcher == "local" else ("ragstone",)


def define(registered: Registry, parts: Components) -> None:
    """Register the job that launches a program elsewhere and watches it.

    Not over HTTP: its arguments are a command.
    """
    from training.launching import register

    register(registered, lambda name: open_launcher(parts, name))


def open_launcher(parts: Components, name: str) -> Launcher:
    """Build a launcher with the options that the settings hold for it.

    Raises:
        InvalidConfiguration: the options do not fit it, or its package is not installed.
        NotFound: there is no such launcher.
    """
    from training import launchers

    options = dict(parts.settings.jobs.launcher_options.get(name, {}))
    if name == "local":
        options.setdefault("folder", parts.settings.data_folder / "launched")
    return launchers.open_launcher(name, **options)
