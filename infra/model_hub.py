"""Models by folder or by hub id, fetched where they are not there yet."""

from __future__ import annotations

from pathlib import Path

from infra.errors import InvalidConfiguration
from infra.plugins import require


def located(model: str, *, extra: str) -> Path:
    """Return the folder of a model that is one, or a hub id (`name` or `name@revision`).

    Raises:
        InvalidConfiguration: there is no such model.
        MissingDependency: the packages for it are not installed.
    """
    if Path(model).is_dir():
        return Path(model).absolute()
    hub = require("huggingface_hub", extra=extra)
    name, _, revision = model.partition("@")
    try:
        return Path(hub.snapshot_download(name, revision=revision or None))
    except (OSError, ValueError) as error:  # the hub's own errors derive from these
        raise InvalidConfiguration(f"Cannot fetch model {model!r}: {error}") from error
