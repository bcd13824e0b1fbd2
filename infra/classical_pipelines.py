"""Reads the skops file of a pipeline: bounded in size, of reviewed types and no newer library."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from infra.classical_releases import refuse_newer
from infra.classical_types import is_reviewed
from infra.errors import InvalidRequest, first_line
from infra.plugins import require

MOST_SHOWN = 5
_SCHEMA = "schema.json"
_RELEASE = re.compile(rb'"_sklearn_version":\s*\{[^{}]*"content":\s*"\\"(\d+)\.(\d+)')
"""That each estimator was fitted by; scikit-learn itself only warns."""


def load(
    data: bytes,
    *,
    trusted: Iterable[str],
    max_bytes: int,
    reviewed: tuple[str, ...] = (),
) -> Any:
    """Return the pipeline in a skops file; nothing in it runs but what is trusted.

    Args:
        data: the file.
        trusted: types that `model.json` names.
        max_bytes: of the file, and of what it unpacks to.
        reviewed: beginnings of dotted names that the operator trusts, beside those reviewed here.

    Raises:
        InvalidRequest: it is no skops file, is or unpacks to too much, is of a newer scikit-learn,
            or holds other types than those that both `model.json` names and were reviewed.
    """
    schema = _schema(data, max_bytes)
    skops = require("skops.io", extra="classical")
    try:
        needed = skops.get_untrusted_types(data=data)
        _check_types(needed, frozenset(trusted), reviewed)
        _check_release(schema)
        return skops.loads(data, trusted=needed)
    except InvalidRequest:
        raise
    except Exception as error:  # whatever a file that was made by hand brings about
        raise InvalidRequest(f"The skops file cannot be loaded: {first_line(error)}") from error


def _schema(data: bytes, max_bytes: int) -> bytes:
    """Return what the file says of itself, once it is known to unpack to what is allowed."""
    if len(data) > max_bytes:
        raise InvalidRequest(f"The skops file has {len(data):,} bytes, {max_bytes:,} are allowed")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if _SCHEMA not in {member.filename for member in members}:
                raise InvalidRequest(f"The file says to be a skops file, and has no {_SCHEMA}")
            size = sum(member.file_size for member in members)
            if size > max_bytes:
                raise InvalidRequest(
                    f"The skops file unpacks to {size:,} bytes, {max_bytes:,} are allowed"
                )
            return archive.read(_SCHEMA)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidRequest("The file says to be a skops file, and is damaged") from error


def _check_release(schema: bytes) -> None:
    sklearn = require("sklearn", extra="classical")
    written = {(int(major), int(minor)) for major, minor in _RELEASE.findall(schema)}
    refuse_newer(written, library="scikit-learn", installed=sklearn.__version__)


def _check_types(needed: Sequence[str], named: frozenset[str], reviewed: tuple[str, ...]) -> None:
    strange = [
        each
        for each in needed
        if not (each in named and (is_reviewed(each) or each.startswith(reviewed)))
    ]
    if strange:
        more = f" and {len(strange) - MOST_SHOWN} more" if len(strange) > MOST_SHOWN else ""
        raise InvalidRequest(
            f"The skops file holds types that nobody reviewed: {', '.join(strange[:MOST_SHOWN])}"
            f"{more}; if they are yours, name them in models.trusted_types and in model.json"
        )
