"""Reads parts of zip-based documents by name, each checked against bombs before it is unpacked."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lxml import etree

from infra.errors import Damaged, Encrypted, ExceedsLimit

if TYPE_CHECKING:
    from infra.settings import Loading

# Deflate reaches 1032:1; the text of real documents stays below 100:1.
_MAX_RATIO = 200
_RATIO_MATTERS_ABOVE_BYTES = 8 * 2**20
_RELATIONSHIPS = "{http://schemas.openxmlformats.org/package/2006/relationships}"


class Archive:
    """A zip file whose members are read into memory one at a time, never written to disk."""

    def __init__(self, path: Path, limits: Loading) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
            raise Damaged(f"Its archive is truncated or malformed: {error}") from error
        members = self._zip.infolist()
        expanded = sum(member.file_size for member in members)
        if expanded > limits.max_expanded_bytes:
            raise ExceedsLimit(
                f"It unpacks to {expanded:,} bytes, more than loading.max_expanded_bytes"
                f" ({limits.max_expanded_bytes:,})"
            )
        self._members = {member.filename.lstrip("/"): member for member in members}

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def check(self, prefix: str) -> None:
        """Refuse the archive if a member whose name begins so is a bomb."""
        for name, member in self._members.items():
            if name.startswith(prefix):
                _refuse_bomb(member)

    def names(self, prefix: str) -> list[str]:
        return [name for name in self._members if name.startswith(prefix)]

    def read(self, name: str) -> bytes:
        """Return a member's bytes.

        Raises:
            Damaged: there is no such member, or it cannot be unpacked.
            Encrypted: it is behind a password.
            ExceedsLimit: it expands as only a bomb does.
        """
        member = self._members.get(name)
        if member is None:
            raise Damaged(f"Its part {name!r} is missing")
        if member.flag_bits & 0x1:
            raise Encrypted("Its archive is behind a password; save it without one")
        _refuse_bomb(member)
        try:
            return self._zip.read(member)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            OSError,
            ValueError,
        ) as error:
            raise Damaged(f"Its part {name!r} cannot be unpacked: {error}") from error

    def xml(self, name: str) -> etree._Element:
        """Parse a member; a document type, which only attacks declare here, is refused."""
        return parse_xml(self.read(name), name)

    def relationships(self, part: str) -> dict[str, tuple[str, str]]:
        """The part's relationships by id: the last word of their type, and the target's name."""
        folder, file = posixpath.split(part)
        name = posixpath.join(folder, "_rels", f"{file}.rels")
        if name not in self:
            return {}
        related = {}
        for element in self.xml(name).iter(f"{_RELATIONSHIPS}Relationship"):
            target = unquote(element.get("Target", ""))
            path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            kind = element.get("Type", "").rpartition("/")[2]
            related[element.get("Id", "")] = (kind, path)
        return related

    def main_part(self, *, otherwise: str) -> str:
        """The part that the package names as its document."""
        for kind, target in self.relationships("").values():
            if kind == "officeDocument" and target in self:
                return target
        return otherwise


def parse_xml(data: bytes, name: str) -> etree._Element:
    """Parse XML with entities, network and document types off."""
    narrow = data.replace(b"\0", b"") if b"\0" in data[:4] else data
    if b"<!DOCTYPE" in narrow or b"<!ENTITY" in narrow:
        raise Damaged(f"Its part {name!r} declares entities, which documents of its kind never do")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Damaged(f"Its part {name!r} is malformed XML: {error}") from error
    return root


def _refuse_bomb(member: zipfile.ZipInfo) -> None:
    if member.file_size <= _RATIO_MATTERS_ABOVE_BYTES:
        return
    ratio = member.file_size / max(1, member.compress_size)
    if ratio > _MAX_RATIO:
        raise ExceedsLimit(
            f"Its part {member.filename!r} expands {ratio:.0f}-fold to {member.file_size:,} bytes,"
            " as a zip bomb does"
        )
