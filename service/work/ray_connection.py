"""The connection to a Ray cluster that other processes of ours work on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidConfiguration, RagstoneError
from infra.plugins import require

if TYPE_CHECKING:
    from infra.settings import Settings

RETRIES = 3
"""How often a worker that died is begun anew, and its work is given to it again: machines are lost,
but what is too large for the memory is so each time."""


class WorkersDied(RagstoneError):
    """A worker died again and again; what was done before stays."""


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Be connected to the cluster of `RAY_ADDRESS`, or to one that is started on this machine.

    The connection is given up if it was made here.
    Ray tells of workers that died on standard output, from a thread of its own and as long as
    there is a connection: that is for what the caller has to say, so it goes to standard error.

    Raises:
        MissingDependency: Ray is not installed.
        InvalidConfiguration: the cluster's nodes could not share an SQLite file.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = require("ray", extra="ray")
    is_ours = not ray.is_initialized()
    with redirect_stdout(sys.stderr):
        if is_ours:
            ray.init(include_dashboard=False, log_to_driver=False)
        try:
            _check_database(ray, settings)
            yield
        finally:
            if is_ours:
                ray.shutdown()


def _check_database(ray: Any, settings: Settings) -> None:
    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(addresses) > 1 and settings.database_location.startswith("sqlite"):
        raise InvalidConfiguration(
            f"The Ray cluster has {len(addresses)} machines, which cannot share an SQLite file;"
            " set database_url to a PostgreSQL database"
        )
