"""Finds an artifact's bytes among the objects of a store, whatever the store lies on."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import orjson

from infra.artifacts.bucket import Ranges
from infra.artifacts.files import Files, Writer, storage_errors
from infra.artifacts.manifest import (
    Entry,
    Manifest,
    Stored,
    decode,
    decode_packs,
    digest_line,
    encode,
)
from infra.artifacts.packs import PACKED_BELOW, Place, read_index
from infra.artifacts.storage import Storage, key_of
from infra.errors import InvalidConfiguration, NotFound, StorageFailed
from infra.security import new_id

MARK = "store.json"
_TAIL_BYTES = 64 * 1024
_READ_AHEAD_BYTES = 64 * 1024
FORMAT = {"fanout": 2, "format": 1, "hash": "sha256", "packed_below": PACKED_BELOW}


def initialise(storage: Storage, files: Files) -> None:
    """Mark a place as a store of this format.

    Raises:
        InvalidConfiguration: it is one of another format, or holds blobs of something else.
    """
    try:
        found = orjson.loads(storage.read(MARK))
    except FileNotFoundError:
        if next(iter(storage.list("blobs")), None) is not None:
            raise InvalidConfiguration(
                f"Here are blobs but no {MARK!r}: not an artifact store; choose another place"
            ) from None
        publish_bytes(storage, MARK, orjson.dumps(FORMAT), files=files)
        storage.flush()
        return
    except ValueError as error:
        raise StorageFailed(f"{MARK!r} is damaged: {error}; write {FORMAT!r} there") from error
    if found != FORMAT:
        raise InvalidConfiguration(f"The store has format {found!r}, this release reads {FORMAT!r}")


def load(storage: Storage, digest: str) -> Stored:
    """Read a manifest.

    Raises:
        NotFound: there is none of this digest.
        StorageFailed: it is damaged.
    """
    try:
        return decode(digest, storage.read(key_of("manifests", digest)))
    except FileNotFoundError as error:
        raise NotFound("artifact", digest) from error


def objects(stored: Stored) -> list[str]:
    """Return the keys of the packs and blobs that hold its bytes, each once."""
    loose = {entry.digest for entry in stored.manifest.entries if entry.size >= PACKED_BELOW}
    return [
        *(key_of("packs", pack) for pack in stored.packs),
        *(key_of("blobs", digest) for digest in sorted(loose)),
    ]


def missing(storage: Storage, keys: Iterable[str]) -> Iterator[str]:
    """Return the keys that have no object."""
    return (key for key in keys if storage.size(key) is None)


def places(storage: Storage, stored: Stored) -> Callable[[Entry], Place]:
    """Return a function that says where an entry's bytes are.

    The function raises `StorageFailed` for a file that no pack of the artifact holds.
    """
    packed: dict[str, tuple[str, int, int]] = {}
    for pack in stored.packs:
        key = key_of("packs", pack)
        for digest, (start, size) in read_index(storage, pack).items():
            packed[f"sha256:{digest.hex()}"] = (key, start, start + size)

    def place(entry: Entry) -> Place:
        if entry.size >= PACKED_BELOW:
            return Place(key_of("blobs", entry.digest), 0, entry.size)
        if entry.digest not in packed:
            raise StorageFailed(f"No pack holds {entry.path!r}; repair the artifact from a mirror")
        return Place(*packed[entry.digest])

    return place


def reader(storage: Storage, place: Place) -> io.BufferedReader:
    """Return a seekable reader over one file's bytes, which fetches what it is asked for."""
    ranges = Ranges(storage, place.key, place.start, place.end)
    return io.BufferedReader(ranges, _READ_AHEAD_BYTES)


def publish(
    storage: Storage,
    manifest: Manifest,
    packs: Iterable[str],
    new_packs: Mapping[str, Path],
    *,
    files: Files,
) -> Stored:
    """Make an artifact readable whose blobs are in place: its new packs, then its manifest.

    Where the same artifact is stored already, whole, nothing is added.
    """
    ordered = tuple(sorted(packs))
    digest, data = encode(manifest, ordered)
    if earlier := _whole(storage, digest, manifest):
        return earlier
    for pack, path in new_packs.items():
        storage.publish(key_of("packs", pack), path)
    storage.flush()
    key = key_of("manifests", digest)
    if not publish_bytes(storage, key, data, files=files):
        # Another writer was first, or what is there is damaged or lost its packs.
        if earlier := _whole(storage, digest, manifest):
            storage.flush()
            return earlier
        if not _is_readable(storage, digest):
            publish_bytes(storage, key, data, files=files, replace=True)
    storage.flush()
    return Stored(digest, manifest, ordered)


def settle(storage: Storage, stored: Stored, *, files: Files) -> None:
    """See to it that the manifest in place names packs that are there.

    Two writers of one artifact may pack it differently. The manifest in place may be the other's,
    and its packs collected since. The caller holds the store's lock and has the objects of
    `stored` in place; nobody else replaces the manifest of a living artifact.
    """
    try:
        packs = packs_of(storage, stored.digest)
        if packs == stored.packs or not any(missing(storage, map(_pack_key, packs))):
            return
    except (NotFound, StorageFailed):
        pass  # taken or damaged meanwhile: it is written anew
    _, data = encode(stored.manifest, stored.packs)
    key = key_of("manifests", stored.digest)
    publish_bytes(storage, key, data, files=files, replace=True)
    storage.flush()


def packs_of(storage: Storage, digest: str) -> tuple[str, ...]:
    """Return the packs of an artifact without reading the list of its files.

    Raises:
        NotFound: there is none of this digest.
        StorageFailed: its manifest is cut short.
    """
    try:
        return decode_packs(storage.read(key_of("manifests", digest), -_TAIL_BYTES))
    except FileNotFoundError as error:
        raise NotFound("artifact", digest) from error


def _whole(storage: Storage, digest: str, manifest: Manifest) -> Stored | None:
    """The artifact as it is stored, if all of it is; what is known to be equal is not parsed."""
    try:
        data = storage.read(key_of("manifests", digest))
        line, _, rest = data.partition(b"\n")
        found = Stored(digest, manifest, decode_packs(rest))
    except (FileNotFoundError, StorageFailed):
        return None
    lost = digest_line(line) != digest or next(missing(storage, objects(found)), None)
    return None if lost else found


def _pack_key(pack: str) -> str:
    return key_of("packs", pack)


def _is_readable(storage: Storage, digest: str) -> bool:
    try:
        line, _, rest = storage.read(key_of("manifests", digest)).partition(b"\n")
        decode_packs(rest)
    except (FileNotFoundError, StorageFailed):
        return False
    return digest_line(line) == digest


def publish_bytes(
    storage: Storage, key: str, data: bytes, *, files: Files, replace: bool = False
) -> bool:
    """Write a small object durably; false if the name is taken.

    `flush` makes the name durable too.
    """
    temporary = storage.scratch / new_id("object-")
    with storage_errors("write an object"):
        files.make_folders(storage.scratch)
        with Writer(temporary, files=files) as writer:
            writer.append(data)
            writer.finish()
    if not replace:
        return storage.publish(key, temporary)
    storage.replace(key, temporary)
    return True
