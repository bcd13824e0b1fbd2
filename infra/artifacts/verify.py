"""Reads an artifact's bytes again to see whether they are what they were, and mends what is not."""

from __future__ import annotations

import hashlib
import io
import math
import os
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from infra.artifacts.contents import load, objects, places
from infra.artifacts.manifest import Entry, Stored
from infra.artifacts.packs import Place
from infra.artifacts.storage import Storage, key_of
from infra.artifacts.sync import Transfer, damage
from infra.errors import NotFound, StorageFailed

Reason = Literal["missing", "damaged", "edited in place"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One object that is not what it should be."""

    key: str
    reason: Reason
    """`edited in place`: changed, and linked into a folder somebody checked out."""
    paths: tuple[str, ...] = ()
    """Files of the artifact that cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Report:
    digest: str
    files: int
    """Files that were read."""
    bytes: int
    problems: tuple[Problem, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Sample:
    """Which of an artifact's files to read."""

    share: float = 1.0
    """Between 0 and 1; at least one file is read."""
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def of(self, entries: Sequence[Entry]) -> list[Entry]:
        distinct = list({entry.digest: entry for entry in entries}.values())
        if self.share >= 1 or not distinct:
            return distinct
        return self.random.sample(distinct, max(1, math.ceil(self.share * len(distinct))))


def verify(storage: Storage, digest: str, *, sample: Sample, workers: int = 1) -> Report:
    """Read an artifact's manifest and files.

    Raises:
        NotFound: there is no manifest of this digest at all.
    """
    try:
        stored = load(storage, digest)
    except StorageFailed:
        return Report(digest, 0, 0, (Problem(key_of("manifests", digest), "damaged"),))
    if broken := _broken_packs(storage, stored):
        return Report(digest, 0, 0, broken)
    chosen = sample.of(stored.manifest.entries)
    try:
        place = places(storage, stored)
        located = [(place(entry), entry) for entry in chosen]
    except StorageFailed:
        return Report(digest, 0, 0, (Problem(key_of("manifests", digest), "damaged"),))
    bad = _read(storage, located, workers=workers)
    paths: dict[str, list[str]] = {}
    for entry in stored.manifest.entries:
        if entry.digest in bad:
            paths.setdefault(bad[entry.digest], []).append(entry.path)
    problems = tuple(
        Problem(key, _reason(storage, key), tuple(names)) for key, names in sorted(paths.items())
    )
    return Report(digest, len(chosen), sum(entry.size for entry in chosen), problems)


def repair(transfer: Transfer, report: Report) -> None:
    """Mend what a report found, with the bytes of another store that has the artifact.

    Raises:
        NotFound: the other store does not have it.
        StorageFailed: what it has is damaged too.
    """
    theirs = load(transfer.source, report.digest)
    offered = {key_of("manifests", report.digest), *objects(theirs)}
    keys = [problem.key for problem in report.problems]
    if all(key in offered and not key.startswith("manifests/") for key in keys):
        transfer.objects(keys, replace=True)
    else:
        # Packed otherwise there, or unknown how it is packed here: take over all of its packs.
        wrong = [key for key in objects(theirs) if damage(transfer.target, key)]
        transfer.objects(wrong, replace=True)
        transfer.target.flush()
        transfer.one(key_of("manifests", report.digest), replace=True)
    transfer.target.flush()


def _broken_packs(storage: Storage, stored: Stored) -> tuple[Problem, ...]:
    problems = []
    for pack in stored.packs:
        try:
            places(storage, Stored(stored.digest, stored.manifest, (pack,)))
        except NotFound:
            problems.append(Problem(key_of("packs", pack), "missing"))
        except StorageFailed:
            problems.append(Problem(key_of("packs", pack), "damaged"))
    return tuple(problems)


def _read(
    storage: Storage, located: Iterable[tuple[Place, Entry]], *, workers: int
) -> dict[str, str]:
    """Return, by digest, the object of each file that is not there or hashes to something else."""
    groups: dict[str, list[tuple[Place, Entry]]] = {}
    for place, entry in located:
        groups.setdefault(place.key, []).append((place, entry))

    def bad_in(key: str) -> dict[str, str]:
        members = sorted(groups[key], key=lambda pair: pair[0].start)
        try:
            with storage.open(key) as stream:
                return {
                    entry.digest: key
                    for place, entry in members
                    if _hash(stream, place) != entry.digest
                }
        except FileNotFoundError:
            return {entry.digest: key for _, entry in members}

    with ThreadPoolExecutor(workers) as pool:
        return {digest: key for found in pool.map(bad_in, groups) for digest, key in found.items()}


def _hash(stream: io.BufferedReader, place: Place) -> str:
    stream.seek(place.start)
    if place.key.startswith("packs/"):
        hasher = hashlib.sha256(stream.read(place.end - place.start))
    else:
        hasher = hashlib.file_digest(stream, hashlib.sha256)
    return f"sha256:{hasher.hexdigest()}"


def _reason(storage: Storage, key: str) -> Reason:
    if storage.size(key) is None:
        return "missing"
    path = storage.path(key)
    linked = path is not None and os.stat(path).st_nlink > 1
    return "edited in place" if linked else "damaged"
