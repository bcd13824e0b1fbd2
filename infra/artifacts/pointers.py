"""Small text files that name an artifact by its content, for a git repository to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from infra.artifacts.manifest import Manifest
from infra.artifacts.refs import Reference, split
from infra.artifacts.storage import checked
from infra.errors import InvalidRequest

FORMAT = 1
_MOST_BYTES = 64 * 1024


def write(file: Path, reference: Reference, manifest: Manifest) -> None:
    """Write a pointer; one that says the same already is left alone."""
    content = {
        "ragstone_artifact": FORMAT,
        "name": f"{reference.kind}/{reference.name}",
        "version": reference.version,
        "digest": reference.digest,
        "files": len(manifest.entries),
        "bytes": manifest.size,
    }
    text = orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"
    if not (file.is_file() and file.read_bytes() == text):
        file.write_bytes(text)


def is_one(text: str) -> bool:
    """Whether the text is a path of a file rather than a reference."""
    return "@" not in text and Path(text).is_file()


def read(file: Path) -> str:
    """Return the reference, by digest, that a pointer holds.

    Raises:
        InvalidRequest: the file is not a pointer.
    """
    try:
        with file.open("rb") as stream:
            found: Any = orjson.loads(stream.read(_MOST_BYTES))
        if found["ragstone_artifact"] != FORMAT:
            raise InvalidRequest(
                f"{str(file)!r} has format {found['ragstone_artifact']!r}; this is for {FORMAT}"
            )
        kind, name = split(found["name"])
        return f"{kind}/{name}@{checked(found['digest'])}"
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"{str(file)!r} is not a pointer that `ragstone artifacts export` wrote: {error}"
        ) from error
