"""Artifacts over HTTP: versions, files, aliases, differences, lineage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, StringConstraints

from infra.artifacts.aliases import Move
from infra.artifacts.lineage import Difference, Lineage
from infra.artifacts.manifest import Manifest
from infra.artifacts.refs import Reference, Version
from service.schemas.shared import Input, unix

Target = Annotated[str, StringConstraints(min_length=1, max_length=80)]
"""What comes behind the `@` of a reference: `v3`, an alias, or `sha256:...`."""


class VersionOut(BaseModel):
    object: Literal["artifact.version"] = "artifact.version"
    reference: str
    kind: str
    name: str
    version: int | None
    digest: str
    aliases: list[str]
    job: str | None
    created_at: int
    expires_at: int | None

    @classmethod
    def of(cls, version: Version) -> VersionOut:
        reference = version.reference
        return cls(
            reference=str(reference),
            kind=reference.kind,
            name=reference.name,
            version=reference.version,
            digest=reference.digest,
            aliases=list(version.aliases),
            job=version.job,
            created_at=unix(version.created_at),
            expires_at=unix(version.expires_at) if version.expires_at else None,
        )


class VersionList(BaseModel):
    object: Literal["list"] = "list"
    data: list[VersionOut]


class NameOut(BaseModel):
    object: Literal["artifact.name"] = "artifact.name"
    reference: str
    """The newest version."""
    kind: str
    name: str
    version: int | None
    digest: str

    @classmethod
    def of(cls, reference: Reference) -> NameOut:
        return cls(
            reference=str(reference),
            kind=reference.kind,
            name=reference.name,
            version=reference.version,
            digest=reference.digest,
        )


class NameList(BaseModel):
    object: Literal["list"] = "list"
    data: list[NameOut]


class EntryOut(BaseModel):
    path: str
    bytes: int
    digest: str
    executable: bool


class ParentOut(BaseModel):
    role: str
    digest: str


class ArtifactOut(BaseModel):
    object: Literal["artifact"] = "artifact"
    reference: str
    kind: str
    name: str
    version: int | None
    digest: str
    bytes: int
    files: int
    metadata: dict[str, Any]
    parents: list[ParentOut]
    entries: list[EntryOut]
    """At most `limit`, from behind the path `after` on."""
    has_more: bool

    @classmethod
    def of(cls, reference: Reference, manifest: Manifest, *, after: str, limit: int) -> ArtifactOut:
        # By code points, as the entries are sorted.
        behind = [entry for entry in manifest.entries if entry.path > after]
        return cls(
            reference=str(reference),
            kind=reference.kind,
            name=reference.name,
            version=reference.version,
            digest=reference.digest,
            bytes=manifest.size,
            files=len(manifest.entries),
            metadata=dict(manifest.metadata),
            parents=[ParentOut(role=each.role, digest=each.digest) for each in manifest.parents],
            entries=[
                EntryOut(
                    path=entry.path,
                    bytes=entry.size,
                    digest=entry.digest,
                    executable=bool(entry.mode & 0o100),
                )
                for entry in behind[:limit]
            ],
            has_more=len(behind) > limit,
        )


class DifferenceOut(BaseModel):
    object: Literal["artifact.difference"] = "artifact.difference"
    before: str
    after: str
    added: list[str]
    removed: list[str]
    changed: list[str]
    unchanged: int
    metadata: list[str]
    """Keys that were added, removed or changed."""

    @classmethod
    def of(cls, before: Reference, after: Reference, found: Difference) -> DifferenceOut:
        return cls(
            before=str(before),
            after=str(after),
            added=list(found.added),
            removed=list(found.removed),
            changed=list(found.changed),
            unchanged=found.unchanged,
            metadata=list(found.metadata),
        )


class EdgeOut(BaseModel):
    child: str
    parent: str
    role: str


class LineageOut(BaseModel):
    object: Literal["artifact.lineage"] = "artifact.lineage"
    digest: str
    """Where it begins."""
    names: dict[str, list[str]]
    """By digest, the versions with that content."""
    edges: list[EdgeOut]

    @classmethod
    def of(cls, digest: str, found: Lineage) -> LineageOut:
        return cls(
            digest=digest,
            names={key: list(names) for key, names in found.names.items()},
            edges=[
                EdgeOut(child=each.child, parent=each.parent, role=each.role)
                for each in found.edges
            ],
        )


class MoveAlias(Input):
    target: Target


class MoveOut(BaseModel):
    action: Literal["move", "rollback", "remove"]
    before: str | None
    after: str | None
    actor: str | None
    at: int

    @classmethod
    def of(cls, move: Move) -> MoveOut:
        return cls(
            action=move.action,
            before=move.before,
            after=move.after,
            actor=move.actor,
            at=unix(move.at),
        )


class AliasOut(BaseModel):
    object: Literal["artifact.alias"] = "artifact.alias"
    name: str
    alias: str
    digest: str | None
    """What it points at; null once it was removed."""
    history: list[MoveOut]
    """The newest first."""
