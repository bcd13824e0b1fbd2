"""The core properties of Office packages: title, author, dates."""

from __future__ import annotations

from infra.errors import UnreadableDocument
from retrieval.loaders._archive import Archive

_PART = "docProps/core.xml"
_KEYS = {
    "title": "title",
    "creator": "author",
    "subject": "subject",
    "keywords": "keywords",
    "description": "description",
    "created": "created",
    "modified": "modified",
    "language": "language",
}


def core_properties(archive: Archive) -> dict[str, str]:
    """The properties that are set; none if the part is damaged: the text does not need it."""
    if _PART not in archive:
        return {}
    try:
        root = archive.xml(_PART)
    except UnreadableDocument:
        return {}
    found = {}
    for element in root:
        key = _KEYS.get(str(element.tag).rpartition("}")[2])
        if key and element.text and element.text.strip():
            found[key] = element.text.strip()
    return found
