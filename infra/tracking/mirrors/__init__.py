"""Mirrors: plug-ins that show runs in another tool; the database stays the truth.

A plug-in is a file with `build(**options) -> Mirror`. Building one neither connects nor writes. It
is called from one thread, apart from the run, and may be called again with what it already got
after a crash. The laws are run over each by `tests/infra/tracking/test_mirrors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from infra.errors import InvalidConfiguration
from infra.plugins import load
from infra.tracking.points import Points
from infra.tracking.records import Link, RunRecord


class Mirror(Protocol):
    """Copies runs elsewhere; whatever it cannot do now is a `StorageFailed`, and is tried again."""

    def open(self, run: RunRecord, remote_id: str | None) -> str:
        """Find or make the copy of a run and return its id there.

        Args:
            run: with its parameters and tags.
            remote_id: of the copy made before, if any; another one is returned if it is gone.
        """
        ...

    def write(self, remote_id: str, points: Mapping[str, Points]) -> None:
        """Append points, by metric; when this returns they are kept."""
        ...

    def close(self, remote_id: str, run: RunRecord, links: Sequence[Link]) -> None:
        """Say how the run ended, and what it used and made."""
        ...


def open_mirror(name: str, options: Mapping[str, Any]) -> Mirror:
    """Build the mirror of plug-in `name`.

    Raises:
        InvalidConfiguration: there is no such plug-in, or it does not take these options.
        MissingDependency: a package it needs is not installed.
    """
    build = load("infra.tracking.mirrors", name)
    try:
        return cast("Mirror", build(**options))
    except TypeError as error:
        raise InvalidConfiguration(
            f"tracking.mirror_options.{name}: {error}; it was given {sorted(options)}"
        ) from error
