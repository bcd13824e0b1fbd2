"""What an artifact was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from infra.artifacts.manifest import Manifest
from infra.artifacts.tables import artifact, edge, version


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    child: str
    """Digest."""
    parent: str
    """Digest."""
    role: str
    """What the parent was used as."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A piece of the graph around one artifact."""

    names: Mapping[str, tuple[str, ...]]
    """By digest, its versions such as `dataset/faq@v3`; of a nameless one, its kind."""
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What it takes to get from one artifact to another."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Other bytes, or another mode."""
    unchanged: int = 0
    """Number of files."""
    metadata: tuple[str, ...] = ()
    """Keys of the metadata that were added, removed or changed."""


def trace(connection: Connection, digest: str, *, up: bool, depth: int) -> Lineage:
    """Follow parents (`up`) or children at most `depth` steps."""
    near, far = (edge.c.child, edge.c.parent) if up else (edge.c.parent, edge.c.child)
    edges: set[Edge] = set()
    seen = {digest}
    frontier = {digest}
    for _ in range(depth):
        rows = connection.execute(select(edge, far.label("next")).where(near.in_(frontier))).all()
        edges.update(Edge(row.child, row.parent, row.role) for row in rows)
        frontier = {row.next for row in rows} - seen
        if not frontier:
            break
        seen |= frontier
    return Lineage(_names(connection, seen), tuple(sorted(edges)))


def compare(before: Manifest, after: Manifest) -> Difference:
    """Return what changed between two artifacts, file by file."""
    old = {entry.path: (entry.digest, entry.mode) for entry in before.entries}
    new = {entry.path: (entry.digest, entry.mode) for entry in after.entries}
    both = old.keys() & new.keys()
    changed = sorted(path for path in both if old[path] != new[path])
    keys = before.metadata.keys() | after.metadata.keys()
    absent = object()
    return Difference(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(old.keys() - new.keys())),
        tuple(changed),
        len(both) - len(changed),
        tuple(
            sorted(
                key
                for key in keys
                if before.metadata.get(key, absent) != after.metadata.get(key, absent)
            )
        ),
    )


def _names(connection: Connection, digests: Iterable[str]) -> dict[str, tuple[str, ...]]:
    wanted = list(digests)
    names: dict[str, list[str]] = {digest: [] for digest in wanted}
    for row in connection.execute(
        select(version).where(version.c.digest.in_(wanted)).order_by(version.c.id)
    ):
        names[row.digest].append(f"{row.kind}/{row.name}@v{row.n}")
    for row in connection.execute(select(artifact).where(artifact.c.digest.in_(wanted))):
        names[row.digest] = names[row.digest] or [row.kind]
    return {digest: tuple(found) for digest, found in sorted(names.items())}
