"""The reader: every real document read or refused as expected, and a process that outlives any."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from infra.contracts import Document
from infra.errors import (
    Damaged,
    EmptyDocument,
    Encrypted,
    ExceedsLimit,
    NotReady,
    UnreadableDocument,
    Unsupported,
)
from infra.settings import Loading
from retrieval.reading import Reader

REFUSED: dict[str, type[UnreadableDocument]] = {
    "eml/empty.eml": EmptyDocument,
    "nasty/billion_laughs.docx": Damaged,
    "nasty/double_extension.pdf.exe": Unsupported,
    "nasty/late_mask_reference.pdf": EmptyDocument,
    "nasty/truncated.docx": Damaged,
    "nasty/truncated.pdf": Damaged,
    "nasty/xxe.docx": Damaged,
    "nasty/zero_bytes.docx": EmptyDocument,
    "nasty/zero_bytes.pdf": EmptyDocument,
    "nasty/zip_bomb_style.docx": ExceedsLimit,
    "pdf/libreoffice-writer-password.pdf": Encrypted,
    "pdf/password.pdf": Encrypted,
    "pdf/unreadablemetadata.pdf": Damaged,  # its cross-references are broken in every reader
    "pptx/test-image-jpg-mime.pptx": EmptyDocument,  # one picture
    "text/fake-text-all-whitespace.txt": EmptyDocument,
    "text/simple.zip": Unsupported,
    "xlsx/empty.xlsx": EmptyDocument,
    "xlsx/password_protected.xlsx": Encrypted,
}
NO_LOADER = ("image/", "legacy/")
OLD = (".doc", ".xls", ".ppt", ".msg", ".rtf", ".png", ".jpg", ".jpeg")

WORDED_OTHERWISE = {
    "html/example-10k.html": "opens with a hidden XBRL header",
    "html/ideas-page.html": "opens with the title, which is metadata here",
    "html/test_wikipedia.html": "opens with the title and the navigation",
    "html/test_serp.html": "opens with a style sheet",
    "text/fake-text-utf-16-le.txt": "the expectation was decoded with the wrong encoding",
    "text/fake-text-utf-32.txt": "the expectation was decoded with the wrong encoding",
}


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader(Loading()) as reader:
        yield reader


def words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def squeezed(text: str) -> str:
    return "".join(words(text))


def test_every_real_document_is_read_or_refused_as_expected(
    shared_data: Path, reader: Reader
) -> None:
    folder = shared_data / "documents"
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert len(entries) == 161
    refused: dict[str, type[UnreadableDocument]] = {}
    checked = 0
    for entry in entries:
        try:
            document = reader.read(folder / entry["path"])
        except UnreadableDocument as refusal:
            refused[entry["path"]] = type(refusal)
            continue
        assert_sound(document)
        if "pages" in entry:
            assert document.metadata["pages"] == entry["pages"]
        expected = entry.get("text_start") or entry.get("expected_text")
        if expected and entry["path"] not in WORDED_OTHERWISE:
            checked += 1
            sought = words(expected)
            whole = sought if len(expected) < 100 else sought[:-1]  # the last one may be cut
            found = squeezed(document.text)
            assert [word for word in whole if word not in found] == [], entry["path"]
    paths = [entry["path"] for entry in entries]
    no_loader = [path for path in paths if path.startswith(NO_LOADER) and path.endswith(OLD)]
    scans = [entry["path"] for entry in entries if entry.get("text_layer") is False]
    assert len(no_loader) == 12
    assert len(scans) == 6
    assert refused == {
        **REFUSED,
        **dict.fromkeys(no_loader, Unsupported),
        **dict.fromkeys(scans, EmptyDocument),
    }
    assert checked == 90


def assert_sound(document: Document) -> None:
    end = 0
    for block in document.blocks:
        assert document.text[end : block.start].strip() == ""
        assert document.text[block.start : block.end].strip() != ""
        end = block.end
    assert document.text[end:].strip() == ""


def test_hidden_instructions_are_not_read(shared_data: Path, reader: Reader) -> None:
    document = reader.read(shared_data / "documents" / "nasty" / "prompt_injection_hidden.html")
    assert document.text == "Refund policy\n\nCustomers may return goods within 30 days."
    assert document.warnings == ("113 characters of hidden text were left out",)


def test_external_entities_are_not_followed(shared_data: Path, reader: Reader) -> None:
    with pytest.raises(Damaged, match="entities") as refusal:
        reader.read(shared_data / "documents" / "nasty" / "xxe.docx")
    assert "root:" not in refusal.value.message


def test_large_documents_leave_the_process_small(shared_data: Path) -> None:
    with Reader(Loading()) as reader:
        for path in ("uber_2021.pdf", "pdf2image-memory-error-test-400p.pdf"):
            assert len(reader.read(shared_data / "documents" / "pdf" / path).text) > 300_000
        memory = child(reader).memory_info().rss
    assert memory < 400 * 2**20


def child(reader: Reader) -> psutil.Process:
    assert reader._child is not None
    return psutil.Process(reader._child._process.pid)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("Kentish ragstone.")
    return path


@pytest.fixture
def slow_file(tmp_path: Path) -> Path:
    """A web page that takes the parser of libxml2 minutes: it compares all attributes."""
    path = tmp_path / "slow.html"
    attributes = " ".join(f"a{number}=1" for number in range(400_000))
    path.write_text(f"<html><body><div {attributes}>text</div></body></html>")
    return path


def test_one_process_serves_many_reads(text_file: Path) -> None:
    with Reader(Loading()) as reader:
        reader.read(text_file)
        first = child(reader).pid
        reader.read(text_file)
        assert child(reader).pid == first
    assert not psutil.pid_exists(first)


def test_reading_the_first_document_takes_little_time(text_file: Path) -> None:
    with Reader(Loading()) as reader:
        started = time.perf_counter()
        reader.read(text_file)
        assert time.perf_counter() - started < 5  # 0.12 s on an idle machine


def test_a_name_tells_kinds_of_text_apart(tmp_path: Path, reader: Reader) -> None:
    stored = tmp_path / "0123abcd"
    stored.write_text("# Stones\n\nText.")
    assert reader.read(stored, filename="a.md").media_type == "text/markdown"
    assert reader.read(stored, filename="a.txt").media_type == "text/plain"


def test_threads_share_a_reader(tmp_path: Path, reader: Reader) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(40)]
    for path in paths:
        path.write_text(f"Text of {path.name}")
    with ThreadPoolExecutor(8) as pool:
        documents = list(pool.map(reader.read, paths))
    assert [document.text for document in documents] == [f"Text of {path.name}" for path in paths]


def test_a_document_that_takes_too_long_is_refused_and_the_next_is_read(
    slow_file: Path, text_file: Path
) -> None:
    with Reader(Loading(timeout_seconds=1)) as reader:
        started = time.monotonic()
        with pytest.raises(ExceedsLimit, match="timeout_seconds"):
            reader.read(slow_file)
        assert time.monotonic() - started < 15
        assert reader.read(text_file).text == "Kentish ragstone."


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGSEGV, Damaged), (signal.SIGKILL, UnreadableDocument)]
)
def test_a_crash_is_reported_and_the_next_document_is_read(
    number: signal.Signals, error: type[UnreadableDocument], slow_file: Path, text_file: Path
) -> None:
    with Reader(Loading()) as reader:
        reader.read(text_file)
        pid = child(reader).pid
        killer = threading.Timer(0.5, os.kill, (pid, number))
        killer.start()
        with pytest.raises(error, match="parser") as refusal:
            reader.read(slow_file)
        killer.join()
        assert type(refusal.value) is error
        assert reader.read(text_file).text == "Kentish ragstone."


def test_a_process_that_died_in_between_is_replaced(text_file: Path) -> None:
    with Reader(Loading()) as reader:
        reader.read(text_file)
        child(reader).kill()
        child(reader).wait()
        assert reader.read(text_file).text == "Kentish ragstone."


def test_a_document_that_needs_too_much_memory_is_refused(tmp_path: Path, text_file: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + '{"a": [1, 2, 3]},' * 2_000_000 + "{}]")
    with Reader(Loading(memory_bytes=256 * 2**20)) as reader:
        with pytest.raises(ExceedsLimit, match="memory_bytes"):
            reader.read(path)
        assert reader.read(text_file).text == "Kentish ragstone."


def test_an_error_no_loader_foresaw_is_reported(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug = "def load_workbook(*_, **__):\n    raise ZeroDivisionError('a bug in a parser')\n"
    (tmp_path / "openpyxl.py").write_text(bug)
    monkeypatch.syspath_prepend(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with Reader(Loading()) as reader:
        with pytest.raises(Damaged, match="ZeroDivisionError: a bug in a parser"):
            reader.read(tmp_path / "a.xlsx")
        assert reader.read(text_file).text == "Kentish ragstone."


def test_an_empty_file_is_an_empty_document(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "a.pdf"
    path.touch()
    with pytest.raises(EmptyDocument, match="empty file"):
        reader.read(path)


def test_what_is_no_file_is_refused_with_the_reason(tmp_path: Path, reader: Reader) -> None:
    with pytest.raises(UnreadableDocument, match="no file"):
        reader.read(tmp_path / "absent.txt")
    with pytest.raises(UnreadableDocument, match="is a folder"):
        reader.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableDocument, match="not a regular file"):
        reader.read(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_refused(text_file: Path, reader: Reader) -> None:
    text_file.chmod(0)
    with pytest.raises(UnreadableDocument, match="Permission denied"):
        reader.read(text_file)


def test_a_file_beyond_the_limit_is_refused(text_file: Path) -> None:
    with Reader(Loading(max_file_bytes=5)) as reader, pytest.raises(ExceedsLimit, match="17 bytes"):
        reader.read(text_file)


def test_a_closed_reader_says_so(text_file: Path) -> None:
    reader = Reader(Loading())
    reader.close()
    with pytest.raises(NotReady):
        reader.read(text_file)


def test_the_parsing_process_sees_no_secrets(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGSTONE_DATABASE_URL", "postgresql://user:word@host/name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "word")
    with Reader(Loading()) as reader:
        reader.read(text_file)
        assert "word" not in " ".join(child(reader).environ().values())


def test_the_parsing_process_dies_with_its_parent(slow_file: Path) -> None:
    script = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from infra.settings import Loading\n"
        "from retrieval.reading import Reader\n"
        "reader = Reader(Loading())\n"
        f"work = threading.Thread(target=reader.read, args=(Path({str(slow_file)!r}),))\n"
        "work.start()\n"
        "while reader._child is None: pass\n"
        "print(reader._child._process.pid, flush=True)\n"
    )
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the parsing process outlived its parent"
        time.sleep(0.05)


def test_large_parent_does_not_wear_out_its_parsing_process(tmp_path: Path) -> None:
    ballast = b"x" * 900_000_000
    with Reader(Loading()) as reader:
        pids = set()
        for number in range(2):
            path = tmp_path / f"{number}.txt"
            path.write_text(f"Document {number}.")
            reader.read(path)
            assert reader._child is not None
            pids.add(reader._child._process.pid)
    assert len(pids) == 1
    assert len(ballast) == 900_000_000
