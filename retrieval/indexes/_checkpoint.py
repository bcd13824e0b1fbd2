"""A durable copy of the local index: files beside the old ones, then one renamed manifest."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infra.errors import CorruptIndex
from retrieval.indexes._analysis import VERSION as ANALYSIS
from retrieval.indexes._candidates import Candidates
from retrieval.indexes._dense import Dense
from retrieval.indexes._folder import ACCESS_LOCK, link, locked_if_free, sync, sync_tree
from retrieval.indexes._piece import FAISS_TYPE, Piece

FORMAT = 2
_MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"
_LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says."""

    checkpoint: str
    """Name of the folder that holds the files."""
    watermark: int
    chunks: int
    dimension: int
    files: Mapping[str, Mapping[str, Any]]
    """By path in the folder: `bytes` and `sha256`."""
    pieces: Sequence[Mapping[str, Any] | None] = ()
    """Of the vectors in `dense-0` and so on: type, parameters and recall; None for a plain scan."""
    faiss: str = FAISS_TYPE
    analysis: int = ANALYSIS
    format: int = FORMAT

    def encoded(self) -> bytes:
        """Return the bytes of the file, which carry their own checksum."""
        body = asdict(self)
        return json.dumps({**body, "sha256": _digest(body)}, indent=1, sort_keys=True).encode()

    @classmethod
    def decoded(cls, raw: bytes) -> Manifest:
        """Read the bytes of a manifest.

        Raises:
            CorruptIndex: they are not what `encoded` writes, or an older version wrote them.
        """
        try:
            body = json.loads(raw)
            sha256 = body.pop("sha256")
            if sha256 != _digest(body):
                raise CorruptIndex("manifest.json does not match its checksum")
            manifest = cls(**body)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptIndex(f"manifest.json cannot be read: {error}") from error
        if (manifest.format, manifest.analysis, manifest.faiss) != (FORMAT, ANALYSIS, FAISS_TYPE):
            raise CorruptIndex("the checkpoint was written by another version")
        return manifest


@dataclass(frozen=True, slots=True)
class Draft:
    """A checkpoint in the making."""

    folder: Path
    name: str
    former: Manifest | None
    """What it takes the place of."""

    @property
    def path(self) -> Path:
        return self.folder / self.name

    def take_texts(self, lexical: Path) -> None:
        """Link the files of a settled tantivy index; they may change afterwards."""
        _link_all(lexical, self.path / _LEXICAL)

    def publish(self, dense: Dense, *, watermark: int) -> Dense:
        """Write the vectors, make this the current checkpoint and return them as mapped from it."""
        for number, piece in enumerate(dense.pieces):
            (self.path / _dense(number)).mkdir()
            piece.save(self.path / _dense(number))
        sync_tree(self.path)
        manifest = Manifest(
            checkpoint=self.name,
            watermark=watermark,
            chunks=len(dense),
            dimension=dense.dimension,
            files=_inventory(self.path, former=self._former_files()),
            pieces=[_described(piece.candidates) for piece in dense.pieces],
        )
        stored = _load(self.path, manifest)
        _publish(self.folder, manifest)
        return stored

    def _former_files(self) -> dict[int, Mapping[str, Any]]:
        if self.former is None:
            return {}
        found = {}
        for name, entry in self.former.files.items():
            try:
                found[(self.folder / self.former.checkpoint / name).stat().st_ino] = entry
            except FileNotFoundError:
                continue
        return found


def manifest_bytes(folder: Path) -> bytes | None:
    """Return the manifest as it stands, sound or not; None if there is none."""
    try:
        return (folder / _MANIFEST).read_bytes()
    except FileNotFoundError:
        return None


def read(folder: Path, raw: bytes, *, dimension: int, lexical: Path) -> tuple[Manifest, Dense]:
    """Verify the checkpoint that the manifest `raw` names, and map its vectors.

    The files of its text index are linked into the folder `lexical`, which must not exist.

    Raises:
        CorruptIndex: a file is missing, changed or superfluous, or the dimension is another.
    """
    manifest = Manifest.decoded(raw)
    if manifest.dimension != dimension:
        raise CorruptIndex(
            f"the checkpoint holds vectors of {manifest.dimension!r} numbers, not {dimension!r}"
        )
    source = folder / manifest.checkpoint
    try:
        found = _inventory(source, former={})
    except OSError as error:
        raise CorruptIndex(f"{manifest.checkpoint!r} cannot be read: {error}") from error
    if found != manifest.files:
        names = sorted(found.keys() | manifest.files.keys())
        wrong = [name for name in names if found.get(name) != manifest.files.get(name)]
        raise CorruptIndex(f"files of {manifest.checkpoint!r} do not match: {', '.join(wrong)}")
    _link_all(source / _LEXICAL, lexical)
    return manifest, _load(source, manifest)


@contextmanager
def draft(folder: Path, *, watermark: int) -> Iterator[Draft]:
    """Begin a checkpoint beside the current one; the caller holds the checkpoint lock.

    What was not published at the end is removed.

    Raises:
        OSError: a file cannot be written; the former checkpoint stays the current one.
    """
    former = _current(folder)
    _remove_all_but(folder, former)
    begun = Draft(folder, f"{_PREFIX}{watermark}-{secrets.token_hex(4)}", former)
    try:
        begun.path.mkdir()
        yield begun
    finally:
        current = _current(folder)
        if current is None or current.checkpoint != begun.name:
            shutil.rmtree(begun.path, ignore_errors=True)
    _remove_all_but(folder, current)


def _load(source: Path, manifest: Manifest) -> Dense:
    try:
        described = [
            None if said is None else Candidates(**said, index=None) for said in manifest.pieces
        ]
    except TypeError as error:
        raise CorruptIndex(f"manifest.json cannot be read: {error}") from error
    pieces = [
        Piece.load(source / _dense(number), dimension=manifest.dimension, candidates=candidates)
        for number, candidates in enumerate(described)
    ]
    return Dense(manifest.dimension, tuple(pieces))


def _described(candidates: Candidates | None) -> dict[str, Any] | None:
    if candidates is None:
        return None
    said = asdict(replace(candidates, index=None))
    del said["index"]
    return said


def _dense(number: int) -> str:
    return f"dense-{number}"


def _publish(folder: Path, manifest: Manifest) -> None:
    temporary = folder / f"{_MANIFEST}.new"
    temporary.write_bytes(manifest.encoded())
    sync(temporary)
    sync(folder)
    os.replace(temporary, folder / _MANIFEST)
    sync(folder)


def _current(folder: Path) -> Manifest | None:
    raw = manifest_bytes(folder)
    try:
        return Manifest.decoded(raw) if raw is not None else None
    except CorruptIndex:
        return None


def _remove_all_but(folder: Path, current: Manifest | None) -> None:
    name = None if current is None else current.checkpoint
    # While another process is reading, the old files stay until the next checkpoint.
    with locked_if_free(folder / ACCESS_LOCK) as free:
        if free:
            for path in folder.glob(f"{_PREFIX}*"):
                if path.is_dir() and path.name != name:
                    shutil.rmtree(path, ignore_errors=True)


def _link_all(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        if path.suffix == ".json":
            # tantivy replaces these, and its segment files never change.
            shutil.copyfile(path, target / path.name)
        elif path.suffix != ".lock":
            link(path, target / path.name)


def _inventory(folder: Path, *, former: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Size and checksum of every file; those of `former`, by inode, are not read again.

    So a byte of theirs that has changed on the disk since does not pass for right.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            entry = former.get(status.st_ino)
            if entry is None:
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                entry = {"bytes": status.st_size, "sha256": sha256}
            found[path.relative_to(folder).as_posix()] = entry
    return found


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
