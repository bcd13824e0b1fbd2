"""Artifacts as the terminal shows them: versions, files, lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.cli.output import say

if TYPE_CHECKING:
    from infra.artifacts.lineage import Lineage
    from infra.artifacts.manifest import Manifest
    from infra.artifacts.refs import Reference, Version


def version_row(version: Version) -> dict[str, Any]:
    """Return a version as `--json` prints it."""
    return {
        "reference": str(version.reference),
        "digest": version.reference.digest,
        "aliases": list(version.aliases),
        "created_at": version.created_at,
        "expires_at": version.expires_at,
        "job": version.job,
    }


def as_dict(reference: Reference, manifest: Manifest) -> dict[str, Any]:
    """Return an artifact as `--json` prints it."""
    return {
        "reference": str(reference),
        "digest": reference.digest,
        "kind": manifest.kind,
        "bytes": manifest.size,
        "metadata": dict(manifest.metadata),
        "parents": [{"role": each.role, "digest": each.digest} for each in manifest.parents],
        "files": [
            {"path": each.path, "bytes": each.size, "digest": each.digest}
            for each in manifest.entries
        ],
    }


def print_tree(found: Lineage, start: str, *, down: bool) -> None:
    """Print a lineage as an indented list, from its start on."""
    nearer: dict[str, list[tuple[str, str]]] = {}
    for edge in found.edges:
        near, far = (edge.parent, edge.child) if down else (edge.child, edge.parent)
        nearer.setdefault(near, []).append((edge.role, far))
    pending = [(0, "", start)]
    shown: set[str] = set()
    while pending:
        level, role, digest = pending.pop()
        names = ", ".join(found.names.get(digest, ())) or digest
        say("  " * level + (f"{role}: " if role else "") + names)
        if digest not in shown:  # what is used twice is spelled out once
            pending += [(level + 1, *each) for each in reversed(nearer.get(digest, []))]
        shown.add(digest)


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value or "")
