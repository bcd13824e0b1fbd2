"""Rubrics as versioned artifacts: `rubric/NAME@v2`, and those that are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.judges.rubric import FILE, MAX_BYTES, Rubric, parse, read_shipped, shipped, shipped_text
from evals.judges.sources import KIND, Sources
from infra.errors import InvalidRequest, RagstoneError

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from infra.artifacts.store import ArtifactStore


def sources(store: ArtifactStore, folder: Path, *, baseline: str = "") -> Sources:
    """Return what opens the rubrics that a suite in `folder` names."""
    return Sources(folder, lambda reference: read(store, reference), baseline)


def read(store: ArtifactStore, reference: str) -> Rubric:
    """Return a stored rubric.

    Raises:
        NotFound: there is none.
        InvalidRequest: the artifact holds no rubric.
    """
    return parse(text(store, reference), source=reference)


def text(store: ArtifactStore, reference: str) -> str:
    """Return a rubric as it was written: a shipped one by its name, a stored one as `rubric/NAME`.

    Raises:
        NotFound: there is none.
        InvalidRequest: the artifact holds no rubric.
    """
    if "/" not in reference and "@" not in reference:
        return shipped_text(reference)
    full = reference if reference.startswith(f"{KIND}/") else f"{KIND}/{reference}"
    if not any(entry.path == FILE for entry in store.resolve(full).entries):
        raise InvalidRequest(f"{full!r} holds no {FILE!r}; `ragstone eval judge put` makes one")
    with store.open(full, FILE) as stream:
        return stream.read(MAX_BYTES + 1).decode("utf-8", "replace")


def put(store: ArtifactStore, written: str, *, source: str) -> Reference:
    """Check a rubric and store it as the next version of `rubric/NAME`.

    Raises:
        InvalidRequest: it is no rubric; says what is wrong.
    """
    from infra.artifacts.publishing import Made

    rubric = parse(written, source=source)
    made = Made(metadata={"rubric": rubric.digest, "asks_for": rubric.kind})
    with store.writer(f"{KIND}/{rubric.name}", made) as draft:
        Path(draft.folder, FILE).write_text(written, encoding="utf-8")
    if draft.reference is None:
        raise RagstoneError("The rubric was not stored; try again")
    return draft.reference


def listed(store: ArtifactStore) -> list[dict[str, Any]]:
    """Return the shipped rubrics, and every version of those that are stored."""
    rows = [_row(name, read_shipped(name)) for name in shipped()]
    for name in store.names(KIND):
        for version in store.versions(f"{KIND}/{name.name}"):
            rows.append(_row(str(version.reference), read(store, str(version.reference))))
    return rows


def _row(name: str, rubric: Rubric) -> dict[str, Any]:
    return {
        "rubric": name,
        "version": rubric.version,
        "asks_for": rubric.kind,
        "shows": ", ".join(rubric.shows),
        "digest": rubric.digest,
    }
