"""Adapters in an artifact store, each known by the sign that it says."""

from __future__ import annotations

from pathlib import Path

from infra.artifacts.store import ArtifactStore
from service.gateway.adapter_files import served_as
from tiny_llm import write_adapter


def publish(store: ArtifactStore, sign: str, *, base: Path, folder: Path) -> str:
    """Store an adapter that says `sign`, tagged by it, and return what it is served as."""
    found = store.put(write_adapter(folder / f"says-{sign}", base, sign), "adapter/support")
    store.tag(str(found), sign.lower())
    return served_as(found)
