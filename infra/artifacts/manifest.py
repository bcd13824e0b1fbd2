"""What an artifact is: a canonical list of files, metadata and parents, named by its own hash."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from infra.artifacts.storage import checked
from infra.errors import InvalidRequest, StorageFailed, TooLarge

FORMAT = 1
MODES = (0o644, 0o755)
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
_UNUSUAL = re.compile(r"[^ -\[\]-~\n]|(?:^|/)\.{0,2}(?:/|$)", re.MULTILINE)
"""A character that is not printable ASCII, a backslash, or an empty name, '.' or '..'."""


class Entry(NamedTuple):
    """One file."""

    digest: str
    mode: int
    """0o644, or 0o755 for a program; nothing else of a file's mode is kept."""
    path: str
    """Relative, with `/` between names."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True, order=True)
class Parent:
    """An artifact this one was made from."""

    role: str
    """What it was used as, such as `train`, `base` or `eval`."""
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """An artifact's identity; equal manifests are the same artifact."""

    kind: str
    entries: tuple[Entry, ...]
    """Sorted by path."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""
    parents: tuple[Parent, ...] = ()
    """Sorted."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def canonical(self) -> bytes:
        """UTF-8 JSON with sorted keys and no white space, one line; what the id is the hash of.

        Raises:
            InvalidRequest: the metadata is not JSON.
        """
        document = {
            "entries": [
                {"digest": digest, "mode": mode, "path": path, "size": size}
                for digest, mode, path, size in self.entries
            ],
            "format": FORMAT,
            "kind": self.kind,
            "metadata": _plain(self.metadata),
            "parents": self.parents,
        }
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

    def entry(self, path: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.path == path), None)


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest as it stands in a store: its identity, and where this store keeps the bytes."""

    digest: str
    manifest: Manifest
    packs: tuple[str, ...]
    """Digests of the packs that hold its small files."""


def build(
    kind: str,
    entries: Iterable[Entry],
    *,
    metadata: Mapping[str, Any] | None = None,
    parents: Iterable[Parent] = (),
) -> Manifest:
    """Return a manifest in canonical order; the paths must be valid already."""
    ordered = tuple(sorted(entries, key=lambda entry: entry.path))
    return Manifest(kind, ordered, metadata or {}, tuple(sorted(set(parents))))


def encode(manifest: Manifest, packs: Iterable[str]) -> tuple[str, bytes]:
    """Return digest and file: the canonical line, then a line that is not part of the identity."""
    line = manifest.canonical()
    return digest_line(line), line + b"\n" + orjson.dumps({"packs": sorted(packs)}) + b"\n"


def decode(digest: str, data: bytes) -> Stored:
    """Read a manifest file, trusting nothing in it.

    Raises:
        StorageFailed: it is half written, does not match its digest or names an unsafe path.
    """
    line, _, rest = data.partition(b"\n")
    if digest_line(line) != digest:
        raise StorageFailed(
            f"Manifest {digest!r} does not match its digest; repair it from a mirror"
        )
    try:
        document = orjson.loads(line)
        if document["format"] != FORMAT:
            raise StorageFailed(
                f"Manifest {digest!r} has format {document['format']!r}; this is for {FORMAT}"
            )
        entries = tuple(_entry(item) for item in document["entries"])
        manifest = Manifest(
            _text(document["kind"]),
            entries,
            dict(document["metadata"]),
            tuple(
                Parent(_text(item["role"]), checked(item["digest"])) for item in document["parents"]
            ),
        )
        check_paths([_text(entry.path) for entry in entries])
    except (ValueError, KeyError, TypeError, InvalidRequest) as error:
        raise StorageFailed(
            f"Manifest {digest!r} cannot be read ({error}); repair it from a mirror"
        ) from error
    return Stored(digest, manifest, decode_packs(rest))


def decode_packs(tail: bytes) -> tuple[str, ...]:
    """Read the last line of a manifest file: the packs that hold its small files.

    Raises:
        StorageFailed: it is half written.
    """
    line = tail.rstrip(b"\n").rpartition(b"\n")[2]
    try:
        return tuple(checked(pack) for pack in orjson.loads(line)["packs"])
    except (ValueError, KeyError, TypeError, InvalidRequest) as error:
        raise StorageFailed("A manifest is cut short; repair it from a mirror") from error


def digest_line(line: bytes) -> str:
    """Return the id of an artifact from the canonical line of its manifest."""
    return f"sha256:{hashlib.sha256(line).hexdigest()}"


def _entry(item: Mapping[str, Any]) -> Entry:
    entry = Entry(checked(item["digest"]), item["mode"], item["path"], item["size"])
    if entry.mode not in MODES or not isinstance(entry.size, int) or entry.size < 0:
        raise ValueError(f"entry {entry!r}")
    return entry


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def check_paths(paths: Sequence[str]) -> None:
    """Refuse paths that escape, that no other system could hold, or that differ in case only.

    Raises:
        InvalidRequest: names the path.
        TooLarge: a path or a name in it is too long.
    """
    text = "\n".join(paths)
    # All of them at once where nothing is unusual, which is nearly always.
    if (
        _UNUSUAL.search(text)
        or text.count("\n") != len(paths) - 1
        or max(map(len, paths)) > MAX_NAME_BYTES
    ):
        for path in paths:
            _check_path(path)
    fold = str.lower if text.isascii() else _fold
    files = dict(zip(map(fold, paths), paths, strict=True))
    if len(files) != len(paths):
        _refuse_clash(paths, fold)
    folders = sorted(_folders(paths))
    if len(set(map(fold, folders))) != len(folders):
        _refuse_clash(folders, fold)
    if clash := next((files[fold(folder)] for folder in folders if fold(folder) in files), None):
        raise InvalidRequest(f"{clash!r} is both a file and a folder; rename one of them")


def _folders(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for parent in {path.rpartition("/")[0] for path in paths}:
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def _refuse_clash(paths: Iterable[str], fold: Callable[[str], str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        if fold(path) in seen:
            raise InvalidRequest(
                f"{seen[fold(path)]!r} and {path!r} are one name where case is ignored; "
                "rename one of them"
            )
        seen[fold(path)] = path


def _check_path(path: str) -> None:
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{path!r} is not a name in UTF-8; rename it") from error
    names = encoded.split(b"/")
    if len(encoded) > MAX_PATH_BYTES or max(map(len, names)) > MAX_NAME_BYTES:
        raise TooLarge(
            f"{path!r} is longer than {MAX_PATH_BYTES} bytes, or a name in it than {MAX_NAME_BYTES}"
        )
    if {b"", b".", b".."} & set(names):
        raise InvalidRequest(f"{path!r} is not a plain relative path; leave out '.' and '..'")
    if "\\" in path or any(unicodedata.category(character) == "Cc" for character in path):
        raise InvalidRequest(
            f"{path!r} holds a character that not every system allows in a name; rename it"
        )


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _plain(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    # A round trip finds what JSON would change quietly: NaN, tuples, dates, keys that are not text.
    try:
        same = orjson.loads(orjson.dumps(metadata)) == metadata
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"Metadata is not JSON: {error}", parameter="metadata") from error
    if not same:
        raise InvalidRequest(
            "Metadata is not JSON: use text, numbers, true, false, null, lists and objects",
            parameter="metadata",
        )
    return metadata
