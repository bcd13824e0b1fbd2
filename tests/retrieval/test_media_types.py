"""What a file is taken for: its content decides, its name only between kinds of text."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from infra.errors import Damaged, Encrypted, Unsupported
from retrieval.media_types import EPUB, SHEETS, SLIDES, WORD, detect

HTML = b"<!DOCTYPE html><html><body>Hello</body></html>"
MAIL = b"From: a@example.com\nTo: b@example.com\nSubject: Hi\n\nHello"


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, EPUB if name == "mimetype" else "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("a.txt", b"Hello", "text/plain"),
        ("a.md", b"# Hello", "text/markdown"),
        ("a.md", b'<p align="center">Logo</p>\n\n# Hello', "text/markdown"),
        ("A.CSV", b"a,b", "text/csv"),
        ("a.tsv", b"a\tb", "text/tab-separated-values"),
        ("a.jsonl", b'{"a": 1}', "application/jsonl"),
        ("a.eml", MAIL, "message/rfc822"),
        ("a.xml", b'<?xml version="1.0"?><a/>', "text/xml"),
        ("a.py", b"print(1)", "text/plain"),
        # Names that say something else than the content.
        ("a.txt", HTML, "text/html"),
        ("a.pdf", HTML, "text/html"),
        ("a.xls", HTML, "text/html"),
        ("a.txt", "\ufeff<html><p>Hi".encode("utf-16-le"), "text/html"),
        ("a.txt", b"%PDF-1.7\n", "application/pdf"),
        ("a.docx", b"junk before\n%PDF-1.7\n", "application/pdf"),
        ("a.pdf", b"Just some words.", "text/plain"),
        ("a.zip", archive("word/document.xml"), WORD),
        ("a.docx", archive("xl/workbook.xml"), SHEETS),
        ("a.bin", archive("ppt/presentation.xml"), SLIDES),
        ("a", archive("mimetype", "META-INF/container.xml"), EPUB),
        # Names that say nothing.
        ("a", HTML, "text/html"),
        ("a", MAIL, "message/rfc822"),
        ("a", b'{"a": 1}\n{"a": 2}', "application/jsonl"),
        ("a", b'{\n "a": 1}', "application/json"),
        ("a", "שלום".encode("utf-16"), "text/plain"),
        ("a", b"BMW makes cars, MZ made motorbikes.", "text/plain"),
    ],
)
def test_content_decides_what_a_file_is(
    name: str, content: bytes, media_type: str, tmp_path: Path
) -> None:
    path = tmp_path / "stored"
    path.write_bytes(content)
    assert detect(path, filename=name) == media_type


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"MZ" + bytes(62), "Windows program"),
        (b"\x7fELF" + bytes(60), "a program"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "JPEG image"),
        (b"{\\rtf1 hello}", "RTF"),
        (b"\x1f\x8b\x08\x00" + bytes(60), "gzip"),
        (bytes(range(256)) * 4, "binary file"),
        (archive("notes.txt"), "zip archive"),
        (archive("xl/workbook.bin"), "xlsb"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le"), ".doc"),
    ],
)
@pytest.mark.parametrize("name", ["a.pdf", "a.txt", "a.docx", "a.pdf.exe"])
def test_what_no_loader_reads_is_refused_under_any_name(
    content: bytes, words: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=words):
        detect(path)


def test_a_torn_archive_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(archive("word/document.xml")[:-30])
    with pytest.raises(Damaged, match="truncated"):
        detect(path)


def test_an_office_file_behind_a_password_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    magic = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    path.write_bytes(magic + bytes(500) + "EncryptedPackage".encode("utf-16-le"))
    with pytest.raises(Encrypted, match="password"):
        detect(path)
