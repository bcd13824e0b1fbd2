"""Turns bytes into text: byte-order mark, UTF-8, the declared encoding, then a guess."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from infra.errors import Damaged

_SAMPLE_BYTES = 64 * 1024
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Which bytes of each four are zero when text of the first Unicode plane is encoded this way.
_ZEROS = (
    ("utf-32-le", (False, None, True, True)),
    ("utf-32-be", (True, True, None, False)),
    ("utf-16-le", (False, True, False, True)),
    ("utf-16-be", (True, False, True, False)),
)


@dataclass(frozen=True, slots=True)
class Decoded:
    text: str
    encoding: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, declared: str | None = None) -> Decoded:
    """Decode all of `data`, never by dropping bytes silently.

    Raises:
        Damaged: no encoding gives text.
    """
    encoding = wide_encoding(data[:_SAMPLE_BYTES])
    if encoding:
        return _decode_as(data, encoding)
    if b"\x1b$" in data or b"\x1b(" in data:  # ISO-2022 looks like ASCII
        try:
            return Decoded(data.decode("iso2022_jp_2"), "iso2022_jp_2")
        except UnicodeDecodeError:
            pass
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    if _is_mostly_utf8(data):
        return _decode_as(data, "utf-8")
    return _decode_as(data, _known(declared) or _guess(data))


def wide_encoding(head: bytes) -> str | None:
    """The encoding that a byte-order mark or the pattern of zero bytes gives away, if one does."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" not in head:
        return None
    length = len(head) - len(head) % 4
    shares = [_share_of_zeros(head[offset:length:4]) for offset in range(4)]
    for encoding, pattern in _ZEROS:
        if all(_fits(share, zero) for share, zero in zip(shares, pattern, strict=True)):
            return encoding
    return None


def _fits(share: float, zero: bool | None) -> bool:
    if zero is None:
        return True
    return share > 0.4 if zero else share < 0.1


def _share_of_zeros(lane: bytes) -> float:
    return lane.count(0) / len(lane) if lane else 0.0


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether sound multi-byte sequences outnumber the broken ones ten to one."""
    text = data.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    return sum(character > "\x7f" for character in text) - broken > 10 * broken


def _known(name: str | None) -> str | None:
    if not name:
        return None
    try:
        codec = codecs.lookup(name.strip().lower().removesuffix("-i"))
    except (LookupError, ValueError):
        return None
    is_text = getattr(codec, "_is_text_encoding", True)
    # Browsers read both as Windows-1252, and so do the pages that declare them.
    return (
        {"iso8859-1": "cp1252", "ascii": "cp1252"}.get(codec.name, codec.name) if is_text else None
    )


def _guess(data: bytes) -> str:
    from charset_normalizer import from_bytes

    first = next((i for i, byte in enumerate(data) if byte > 0x7F), 0)
    sample = data[max(0, first - 1024) : first + _SAMPLE_BYTES]
    matches = from_bytes(sample)
    if not matches:
        raise Damaged("Its text is in no known encoding; save it as UTF-8")
    best = min(matches, key=lambda match: (match.chaos, -match.coherence))
    return "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding


def _decode_as(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, errors="replace")
    broken = text.count("\ufffd")
    if not broken:
        return Decoded(text, encoding)
    if broken > max(2, len(text) // 50):
        raise Damaged(f"{broken:,} of its characters are not {encoding}; save it as UTF-8")
    return Decoded(text, encoding, (f"{broken} characters are not {encoding} and were replaced",))
