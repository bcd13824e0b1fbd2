"""Tells what a file is from its first bytes and, where bytes cannot tell, from its name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePath

from infra.errors import Damaged, Encrypted, Unsupported

_HEAD_BYTES = 64 * 1024

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
SLIDES = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
SHEETS = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
OPEN_TEXT = "application/vnd.oasis.opendocument.text"
EPUB = "application/epub+zip"

# What is recognised to be refused with its name, rather than read as gibberish.
_FOREIGN = (
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"\x89PNG\r\n", "a PNG image, which has no text layer"),
    (b"\xff\xd8\xff", "a JPEG image, which has no text layer"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image, which has no text layer"),
    (b"MM\x00*", "a TIFF image, which has no text layer"),
    (b"RIFF", "an audio, video or WebP file"),
    (b"OggS", "an audio or video file"),
    (b"ID3", "an audio file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"(\xb5/\xfd", "a Zstandard archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"SQLite format 3", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"{\\rtf", "rich text (RTF); save it as .docx"),
    (b"%!PS", "PostScript; save it as PDF"),
)
_ASCII_MAGIC = frozenset({b"{\\rtf", b"%!PS"})
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Stream names stand in the container's directory as UTF-16.
_OLE_STREAMS = (
    ("WordDocument", "an old Word file (.doc); save it as .docx"),
    ("PowerPoint Document", "an old PowerPoint file (.ppt); save it as .pptx"),
    ("Workbook", "an old Excel file (.xls); save it as .xlsx"),
    ("Book", "an old Excel file (.xls); save it as .xlsx"),
    ("__properties_version1.0", "an Outlook message (.msg); save it as .eml"),
)
_ZIP_MEMBERS = (
    ("word/document", WORD),
    ("ppt/presentation.xml", SLIDES),
    ("xl/workbook.xml", SHEETS),
)
_NAMES = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdown": "text/markdown",
    ".mkd": "text/markdown",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".tab": "text/tab-separated-values",
    ".xls": "text/csv",
    ".xlsx": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".eml": "message/rfc822",
    ".mht": "message/rfc822",
    ".mhtml": "message/rfc822",
    ".htm": "text/html",
    ".html": "text/html",
    ".xhtml": "text/html",
    ".xml": "text/xml",
}
# Names that say "plain text" are believed unless the content opens as a web page or XML does.
_PLAIN = frozenset({".txt", ".text", ".log", ".rst", ".org", ".tex", ".srt", ".vtt"})

_SPACE = b" \t\r\n\x0b\x0c"
_HTML = re.compile(
    rb"(?:<\?xml[^>]{0,200}>\s*|<!--.{0,2000}?-->\s*){0,8}"
    rb"(?:<!doctype\s+html|<(?:html|head|body|title|meta|script|style)[\s>/])",
    re.DOTALL | re.IGNORECASE,
)
_MAIL_HEADER = re.compile(
    rb"^(?:from|to|subject|date|received|return-path|message-id|mime-version|delivered-to"
    rb"|content-type|reply-to|cc|x-[\w-]+):",
    re.MULTILINE | re.IGNORECASE,
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b\x0b")) + b"\x7f"


def detect(path: Path, *, filename: str | None = None) -> str:
    """Return the media type that `path`'s content has; `filename` is its name if `path` is not.

    Raises:
        Unsupported: the content is of a kind that no loader reads.
        Encrypted: it is an Office file behind a password.
        Damaged: it begins as an archive and is none.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if b"%PDF-" in head[:1024]:
        return "application/pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_type(path)
    if head.startswith(_OLE):
        _refuse_ole(path)
    for magic, kind in _FOREIGN:
        if head.startswith(magic) and (magic in _ASCII_MAGIC or _is_binary(head)):
            raise Unsupported(f"It is {kind}")
    if _is_binary(head):
        raise Unsupported("It is a binary file of a kind that no loader reads")
    return _text_type(head, PurePath(filename or path.name).suffix.lower())


def _zip_type(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 200:
                declared = archive.read("mimetype").decode("ascii", errors="replace").strip()
                if declared in {EPUB, OPEN_TEXT}:
                    return declared
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise Damaged(
            f"It begins as a zip archive and is truncated or malformed: {error}"
        ) from error
    for member, media_type in _ZIP_MEMBERS:
        if any(name.lower().startswith(member) for name in names):
            return media_type
    if "META-INF/container.xml" in names:
        return EPUB
    if "xl/workbook.bin" in names:
        raise Unsupported("It is a binary Excel file (.xlsb); save it as .xlsx")
    raise Unsupported("It is a zip archive; unpack it and ingest what it holds")


def _refuse_ole(path: Path) -> None:
    content = path.read_bytes()
    if "EncryptedPackage".encode("utf-16-le") in content:
        raise Encrypted("It is an Office file behind a password; save it without one")
    for stream, kind in _OLE_STREAMS:
        if stream.encode("utf-16-le") in content:
            raise Unsupported(f"It is {kind}")
    raise Unsupported("It is an old Office file; save it in today's format")


def _is_binary(head: bytes) -> bool:
    from retrieval.loaders._decoding import wide_encoding

    if wide_encoding(head):
        return False
    strange = len(head) - len(head.translate(None, _CONTROLS))
    return strange > 2 + len(head) // 100


def _text_type(head: bytes, suffix: str) -> str:
    # Wide encodings are sniffed by their ASCII letters alone.
    start = re.sub(rb"^(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)", b"", head.replace(b"\0", b""))
    start = start.lstrip(_SPACE)
    if _HTML.match(start):
        return "text/html"
    if start.startswith(b"<?xml") and _NAMES.get(suffix) != "text/html":
        return "text/xml"
    if suffix in _NAMES:
        return _NAMES[suffix]
    if suffix in _PLAIN:
        return "text/plain"
    return _sniffed(start)


def _sniffed(start: bytes) -> str:
    """Of a text whose name says nothing."""
    headers = start.split(b"\n\n", 1)[0].split(b"\r\n\r\n", 1)[0]
    if len(_MAIL_HEADER.findall(headers)) >= 3 and _MAIL_HEADER.match(headers):
        return "message/rfc822"
    if re.match(rb"\{\s*\"|\[\s*[\[{\"]", start):
        first_line = start.split(b"\n", 1)[0].rstrip()
        return "application/jsonl" if first_line.endswith(b"}") else "application/json"
    return "text/plain"
