"""LoRA adapters as artifacts: checked out, looked into, held against the model they are for."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.errors import Conflict, InvalidRequest, NotFound

logger = logging.getLogger(__name__)

KIND = "adapter"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HARMLESS = frozenset({".safetensors", ".json", ".md", ".txt", ".jinja", ".model", ".yaml"})
"""Endings of files that are read, never run; anything else is refused."""
MAX_CONFIG_BYTES = 2**20
GONE = ".gone-"
"""Before the name of a folder that is being removed."""
NAME_DIGITS = 16
"""Of the digest, in the name that a version is served under."""


VERSIONED = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]*@[0-9a-f]{{{NAME_DIGITS}}}")
"""Names that versions are served under; what is called otherwise is not ours to remove."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an engine serves."""

    names: frozenset[str]
    """What it may be called: its folder or id, and the name it is served under."""
    digest: str | None = None
    """Of the artifact that its folder was checked out of."""
    max_rank: int | None = None
    """Of adapters that the engine takes."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One version of an adapter, on this machine's disk."""

    name: str
    """That it is served under: no other content is ever served under it."""
    digest: str
    folder: Path
    rank: int
    base_name: str
    base_digests: frozenset[str]
    """Artifacts that it was made from, in the role of the base."""


def fetch(store: ArtifactStore, reference: str, folder: Path) -> Adapter:
    """Check an adapter out below `folder`, unless it is there, and look into it.

    Raises:
        NotFound: the reference means nothing.
        InvalidRequest: it is no LoRA adapter, or holds files that could run code.
    """
    adapter = look_into(store, reference, folder)
    place = adapter.folder
    if not place.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            store.checkout(_pinned(adapter), place, verify=True)
        except Conflict:  # another process was faster, and lays out all files or none
            if not place.is_dir():
                raise
    return adapter


def look_into(store: ArtifactStore, reference: str, folder: Path) -> Adapter:
    """Return what an adapter is by its configuration; nothing is checked out below `folder`.

    Raises:
        NotFound, InvalidRequest: as `fetch`.
    """
    found = store.find(reference)
    if found.kind != KIND:
        raise InvalidRequest(f"{reference!r} is no adapter; references begin with '{KIND}/'")
    pinned = f"{KIND}/{found.name}@{found.digest}"
    manifest = store.resolve(pinned)
    for entry in manifest.entries:
        _refuse_code(reference, entry.path)
    if WEIGHTS not in {entry.path for entry in manifest.entries}:
        raise InvalidRequest(f"{reference!r} holds no {WEIGHTS}; save the adapter as safetensors")
    config = _read_config(store, reference, pinned)
    return Adapter(
        name=served_as(found),
        digest=found.digest,
        folder=folder.absolute() / served_as(found),
        rank=_rank(reference, config),
        base_name=str(config.get("base_model_name_or_path") or ""),
        base_digests=frozenset(each.digest for each in manifest.parents if each.role == "base"),
    )


def prune(folder: Path, *, needed: Collection[str], keep_seconds: float) -> None:
    """Remove versions below `folder` that are not `needed`, and were laid out before so long."""
    before = time.time() - keep_seconds
    places = sorted(folder.iterdir()) if folder.is_dir() else []
    for place in places:
        if place.name in needed or not VERSIONED.fullmatch(place.name.removeprefix(GONE)):
            continue
        try:
            if place.stat().st_ctime <= before:
                # Out of the way first: a folder with half of its files would pass for a version.
                gone = place.with_name(GONE + place.name.removeprefix(GONE))
                place.rename(gone)
                shutil.rmtree(gone)
        except OSError as error:  # another process may be at it
            logger.warning("%s cannot be removed: %s", place, error)


def served_as(found: Reference) -> str:
    """Return the name that a version is served under."""
    return f"{found.name}@{found.digest.rpartition(':')[2][:NAME_DIGITS]}"


def check(adapter: Adapter, base: Base) -> None:
    """Hold an adapter against the model that an engine serves.

    Raises:
        InvalidRequest: it was made for another model, or its rank is too high.
    """
    if base.max_rank is not None and adapter.rank > base.max_rank:
        raise InvalidRequest(
            f"{adapter.name!r} has rank {adapter.rank}, and the engine takes at most "
            f"{base.max_rank}; raise max_lora_rank in its settings"
        )
    if base.digest is not None and adapter.base_digests:
        if base.digest in adapter.base_digests:
            return
        raise InvalidRequest(
            f"{adapter.name!r} was made from {', '.join(sorted(adapter.base_digests))}, and the "
            f"engine serves {base.digest}"
        )
    if not any(_is_same(adapter.base_name, name) for name in base.names):
        raise InvalidRequest(
            f"{adapter.name!r} was made for the model {adapter.base_name!r}, and the engine serves "
            f"{', '.join(map(repr, sorted(base.names)))}"
        )


def _refuse_code(reference: str, path: str) -> None:
    if Path(path).suffix.lower() not in HARMLESS:
        raise InvalidRequest(
            f"{reference!r} holds {path!r}; adapters are served from safetensors and JSON alone"
        )


def _pinned(adapter: Adapter) -> str:
    return f"{KIND}/{adapter.name.rpartition('@')[0]}@{adapter.digest}"


def _read_config(store: ArtifactStore, reference: str, pinned: str) -> Mapping[str, Any]:
    try:
        with store.open(pinned, CONFIG) as file:
            config = json.loads(file.read(MAX_CONFIG_BYTES))
    except (NotFound, OSError, ValueError) as error:
        raise InvalidRequest(f"{reference!r} has no readable {CONFIG}: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InvalidRequest(f"{reference!r} is no LoRA adapter by its {CONFIG}")
    for feature in ("use_dora", "modules_to_save", "trainable_token_indices"):
        if config.get(feature):
            raise InvalidRequest(
                f"{reference!r} uses {feature!r}, which engines cannot serve beside the plain model"
            )
    if config.get("bias") not in {None, "none"}:
        raise InvalidRequest(f"{reference!r} has biases, which engines cannot serve")
    return config


def _rank(reference: str, config: Mapping[str, Any]) -> int:
    pattern = config.get("rank_pattern") or {}
    ranks: list[Any] = [
        config.get("r"),
        *(pattern.values() if isinstance(pattern, dict) else ["?"]),
    ]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise InvalidRequest(f"{reference!r} has the ranks {ranks!r}; they are whole numbers")
    return int(max(ranks))


def _is_same(ours: str, theirs: str) -> bool:
    if not ours:
        return False
    return ours == theirs or (
        os.path.isdir(ours) and os.path.isdir(theirs) and os.path.samefile(ours, theirs)
    )
