"""Snapshots of collections as artifacts: taken while writes go on, restored on any machine."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.artifacts.publishing import Made
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from retrieval.collections import Collection
    from retrieval.recipe import Recipe
    from retrieval.snapshot import Manifest
    from service.wiring import Components

KIND = "collection"
TAKE = "snapshot"
RESTORE = "restore"


def define(registered: Registry, parts: Components) -> None:
    """Register the jobs of this file; each begins anew when its worker dies."""

    @registered.job(TAKE, behaviour=Behaviour(steps=False))
    def snapshot(
        attempt: Attempt, *, collection: str, name: str | None = None, with_files: bool = True
    ) -> dict[str, str]:
        whole = parts.collections.get(collection)
        attempt.progress(None, f"copying {whole.name!r}")
        reference = take(parts, whole, name=name, with_bytes=with_files)
        return {"artifact": str(reference), "digest": reference.digest}

    @registered.job(RESTORE, behaviour=Behaviour(steps=False))
    def restore_(attempt: Attempt, *, artifact: str, name: str) -> dict[str, str]:
        attempt.progress(None, f"restoring {artifact}")
        made = restore(parts, artifact, name)
        return {"id": made.public_id, "name": made.name}


def take(
    parts: Components, whole: Collection, *, name: str | None = None, with_bytes: bool = True
) -> Reference:
    """Store a collection, as it is at one moment, as the next version of `collection/name`.

    Raises:
        InvalidRequest: the name is malformed.
        StorageFailed: the disk is full; nothing is half visible.
    """
    from retrieval import snapshot

    target = f"{KIND}/{name or artifact_name(whole.name)}"
    with parts.artifacts.writer(target, Made()) as draft:
        manifest = snapshot.write(
            parts.database, parts.blobs, whole, draft.folder, with_bytes=with_bytes
        )
        draft.metadata |= {
            "collection": manifest.collection,
            "documents": manifest.documents,
            "chunks": manifest.chunks,
            "sequence": manifest.sequence,
        }
    if draft.reference is None:
        raise RuntimeError("a draft that was stored has a reference")
    return draft.reference


def restore(parts: Components, reference: str, name: str) -> Collection:
    """Bring a snapshot up as a new collection, and build its index; nothing is embedded.

    Raises:
        Conflict: the name is taken.
        InvalidConfiguration: the settings choose another embedder than it was made with.
        InvalidRequest: the artifact is no snapshot.
    """
    from retrieval.restoring import Restorer
    from retrieval.snapshot import Manifest

    with tempfile.TemporaryDirectory(dir=parts.settings.data_folder) as scratch:
        folder = parts.artifacts.checkout(reference, Path(scratch) / "snapshot", verify=True)
        recipe = _opened_here(parts, Manifest.read(folder))
        made = Restorer(parts.database, parts.blobs).restore(folder, name, recipe)
    view = parts.views.get(made)
    view.refresh()
    view.checkpoint(at_least=1)
    return made


def artifact_name(collection: str) -> str:
    """Return a collection's name as an artifact may have it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", collection).strip("-._")[:128] or "snapshot"


def _opened_here(parts: Components, manifest: Manifest) -> Recipe:
    from retrieval.recipe import Recipe, without_secrets

    # Which code is run and with what is this machine's choice, never that of a file from elsewhere.
    recipe = Recipe(**{**manifest.recipe, "embedder_options": None})
    parts.embedders.of(recipe, collection=manifest.collection)
    options = parts.settings.retrieval
    return replace(
        recipe,
        embedder=options.embedder,
        embedder_options=without_secrets(options.embedder_options),
    )
