"""What a model's file is by its first bytes; whatever could run code is refused by them."""

from __future__ import annotations

from typing import Literal

from infra.errors import InvalidRequest

Kind = Literal["pickle", "zip", "gzip", "array", "json", "text", "other"]
_HEADS: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x78\x01", "gzip"),
    (b"\x78\x9c", "gzip"),
    (b"\x78\xda", "gzip"),
    (b"\x93NUMPY", "array"),
    (b"{", "json"),
    (b"tree\n", "text"),
)
_OLD_PICKLES = (b"(", b"c", b"]", b"}")
"""How pickles of protocols 0 and 1 begin that hold more than a number or a text."""


def kind_of(data: bytes) -> Kind:
    r"""Return what the bytes are.

    >>> kind_of(b"\x80\x04N."), kind_of(b"PK\x03\x04"), kind_of(b"cos\nsystem\n.")
    ('pickle', 'zip', 'pickle')
    """
    if data[:1] == b"\x80" and data[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return "pickle"
    if data.startswith(_OLD_PICKLES) and data.endswith(b"."):
        return "pickle"
    return next((kind for head, kind in _HEADS if data.startswith(head)), "other")


def check(data: bytes, *, wanted: Kind, shown: str, max_bytes: int) -> None:
    """Refuse a file that is not of the kind that its format has.

    Raises:
        InvalidRequest: says what it is instead; a pickle, above all.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(
            f"The model has {len(data):,} bytes, {max_bytes:,} are allowed; "
            "raise models.max_model_bytes"
        )
    found = kind_of(data)
    if found == "pickle":
        raise InvalidRequest(
            f"The file is a pickle, not {shown}, and loading it could run code; train it again"
        )
    if found != wanted:
        raise InvalidRequest(f"The file says to be {shown}, and is not by its first bytes")
