"""A verified adapter becomes the next version of `adapter/NAME`, with what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from training.specification.delivery import Register

KIND = "adapter"
CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an adapter comes from."""

    parents: Sequence[tuple[str, str]]
    """`(role, reference)` of the artifacts that it was made from; the base's role is `base`."""
    facts: Mapping[str, Any]
    """Digests of what it was made from and what was measured; part of what it is."""
    job: str | None = None


def name_base(folder: Path, base_name: str) -> None:
    """Write into an adapter's configuration what its base is called."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def register(store: ArtifactStore, folder: Path, asked: Register, origin: Origin) -> Reference:
    """Put an adapter into the store, and point the alias at it.

    Raises:
        StorageFailed: the store is full or out of reach; nothing of it is visible.
        NotFound: a parent is gone from the store.
    """
    made = Made(metadata=dict(origin.facts), parents=tuple(origin.parents), job=origin.job)
    reference = store.put(folder, f"{KIND}/{asked.name}", made)
    if asked.alias is not None:
        store.tag(str(reference), asked.alias, actor=origin.job)
    return reference
