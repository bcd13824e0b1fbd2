"""A durable copy of the local index: files beside the old ones, then one renamed manifest."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.errors import CorruptIndex
from retrieval.indexes._analysis import VERSION as ANALYSIS
from retrieval.indexes._dense import FAISS_TYPE, Dense
from retrieval.indexes._folder import ACCESS_LOCK, link, locked_if_free, sync, sync_tree

FORMAT = 1
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
class Content:
    """What goes into a checkpoint."""

    dense: Dense
    lexical: Path
    """Folder of a settled tantivy index."""
    watermark: int


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
        found = _inventory(source)
    except OSError as error:
        raise CorruptIndex(f"{manifest.checkpoint!r} cannot be read: {error}") from error
    if found != manifest.files:
        names = sorted(found.keys() | manifest.files.keys())
        wrong = [name for name in names if found.get(name) != manifest.files.get(name)]
        raise CorruptIndex(f"files of {manifest.checkpoint!r} do not match: {', '.join(wrong)}")
    _link_all(source / _LEXICAL, lexical)
    return manifest, Dense.load(source, dimension=dimension)


def write(folder: Path, content: Content) -> None:
    """Write a checkpoint and make it the current one; the caller holds the checkpoint lock.

    Raises:
        OSError: a file cannot be written; the former checkpoint stays the current one.
    """
    _remove_all_but(folder, _current(folder))
    name = f"{_PREFIX}{content.watermark}-{secrets.token_hex(4)}"
    target = folder / name
    try:
        target.mkdir()
        content.dense.save(target)
        _link_all(content.lexical, target / _LEXICAL)
        sync_tree(target)
        manifest = Manifest(
            checkpoint=name,
            watermark=content.watermark,
            chunks=len(content.dense),
            dimension=content.dense.dimension,
            files=_inventory(target),
        )
        _publish(folder, manifest)
    except BaseException:
        if _current(folder) != name:
            shutil.rmtree(target, ignore_errors=True)
        raise
    _remove_all_but(folder, name)


def _publish(folder: Path, manifest: Manifest) -> None:
    temporary = folder / f"{_MANIFEST}.new"
    temporary.write_bytes(manifest.encoded())
    sync(temporary)
    sync(folder)
    os.replace(temporary, folder / _MANIFEST)
    sync(folder)


def _current(folder: Path) -> str | None:
    raw = manifest_bytes(folder)
    try:
        return Manifest.decoded(raw).checkpoint if raw is not None else None
    except CorruptIndex:
        return None


def _remove_all_but(folder: Path, name: str | None) -> None:
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


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            found[name] = {"bytes": path.stat().st_size, "sha256": sha256}
    return found


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
