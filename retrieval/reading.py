"""Reads documents in a process of its own, so that no file can take down or swell the service."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from infra.contracts import Block, Document
from infra.errors import (
    Damaged,
    EmptyDocument,
    Encrypted,
    ExceedsLimit,
    NotReady,
    RagstoneError,
    UnreadableDocument,
    Unsupported,
)
from infra.settings import Loading
from retrieval.reading_worker import LENGTH

_START_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20
_ERRORS: dict[str, type[UnreadableDocument]] = {
    error.code: error
    for error in (UnreadableDocument, Damaged, EmptyDocument, Encrypted, ExceedsLimit, Unsupported)
}
_KINDS = frozenset({"heading", "paragraph", "list_item", "table", "code"})
# A parser that is taken over finds no secrets in its environment.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")


class Reader:
    """Reads one document at a time; safe to share between threads.

    The parsing process starts with the first document, is kept for the next ones, and is replaced
    after a crash or when a document takes longer than `limits.timeout_seconds`.
    """

    def __init__(self, limits: Loading) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, path: Path, *, filename: str | None = None) -> Document:
        """Extract the text of a file.

        Args:
            path: the file.
            filename: its name, if `path` is a stored copy named otherwise.

        Raises:
            UnreadableDocument: with the reason; `Encrypted`, `Unsupported`, `EmptyDocument`,
                `Damaged` or `ExceedsLimit` where one of them is it.
        """
        _check_file(path, self._limits)
        request = {"path": str(path.absolute()), "filename": filename or path.name}
        with self._lock:
            if self._closed:
                raise NotReady("The reader is closed")
            answer = self._ask(request)
        return _to_document(answer, self._limits)

    def close(self) -> None:
        """End the parsing process; a read in progress finishes first."""
        with self._lock:
            self._closed = True
            self._discard()

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        if self._child is not None and not self._child.is_alive:
            self._discard()
        if self._child is None:
            self._child = _Child(self._limits)
        try:
            answer = self._child.ask(request)
        except BaseException:
            self._discard()  # an answer that is not waited for must not meet the next question
            raise
        if answer.get("last"):
            self._discard()
        return answer

    def _discard(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None


class _Child:
    """One parsing process and the two pipes to it."""

    def __init__(self, limits: Loading) -> None:
        self._limits = limits
        self._answer_bytes = 8 * limits.max_text_characters + (64 << 20)
        root = str(Path(__file__).parent.parent)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        with tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "retrieval.reading_worker", limits.model_dump_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=environment,
                process_group=0,  # Ctrl-C is for the parent, which then ends this one in order
            )
            self._await_ready(complaints)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, str]) -> dict[str, Any]:
        """Send a request and wait for its answer, at most as long as a document may take."""
        payload = json.dumps(request).encode()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(LENGTH.pack(len(payload)) + payload)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._explain_end() from None
        deadline = time.monotonic() + self._limits.timeout_seconds
        try:
            return self._receive(deadline)
        except TimeoutError:
            raise ExceedsLimit(
                f"Reading it took more than {self._limits.timeout_seconds:g} s;"
                " split it, or raise loading.timeout_seconds"
            ) from None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _await_ready(self, complaints: Any) -> None:
        try:
            self._receive(time.monotonic() + _START_SECONDS)
        except (TimeoutError, UnreadableDocument) as error:
            self.stop()
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise RagstoneError(f"The parsing process does not start: {said or error}") from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        head = self._read(LENGTH.size, deadline)
        length = LENGTH.unpack(head)[0]
        if length > self._answer_bytes:
            raise Damaged("Its parser answered with more than a document can be")
        answer = orjson.loads(self._read(length, deadline))
        if not isinstance(answer, dict):
            raise Damaged("Its parser answered with something that is no document")
        return answer

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        received = bytearray()
        while len(received) < count:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not poll.poll(remaining * 1000):
                raise TimeoutError
            block = os.read(pipe, min(_CHUNK_BYTES, count - len(received)))
            if not block:
                raise self._explain_end()
            received += block
        return bytes(received)

    def _explain_end(self) -> UnreadableDocument:
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return Damaged("Its parser closed its answer before it was complete")
        if status == -signal.SIGKILL:
            return UnreadableDocument(
                "Its parser was killed, perhaps for want of memory; try again"
            )
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return Damaged(
            f"Its parser stopped ({name}): the file is malformed, or needs more than"
            " loading.memory_bytes"
        )


def _check_file(path: Path, limits: Loading) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UnreadableDocument(f"There is no file {str(path)!r}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableDocument(f"File {str(path)!r} cannot be opened: {reason}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableDocument(f"{str(path)!r} is a folder; name the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableDocument(f"{str(path)!r} is not a regular file")
    if not os.access(path, os.R_OK):
        raise UnreadableDocument(f"File {str(path)!r} cannot be opened: Permission denied")
    if status.st_size == 0:
        raise EmptyDocument("It is an empty file")
    if status.st_size > limits.max_file_bytes:
        raise ExceedsLimit(
            f"It has {status.st_size:,} bytes, more than loading.max_file_bytes"
            f" ({limits.max_file_bytes:,})"
        )


def _to_document(answer: dict[str, Any], limits: Loading) -> Document:
    """Build the document, trusting nothing that the parsing process says about it."""
    if "error" in answer:
        message = str(answer.get("message", ""))
        if answer["error"] == "missing_dependency":
            raise RagstoneError(message)
        raise _ERRORS.get(str(answer["error"]), UnreadableDocument)(message)
    try:
        document = Document(
            text=answer["text"],
            blocks=tuple(Block(*row) for row in answer["blocks"]),
            media_type=str(answer["media_type"]),
            title=str(answer["title"]),
            metadata=dict(answer["metadata"]),
            warnings=tuple(map(str, answer["warnings"])),
        )
        is_sound = _is_sound(document, limits)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged("Its parser answered with something that is no document") from error
    if not is_sound:
        raise Damaged("Its parser answered with blocks that do not fit the text")
    return document


def _is_sound(document: Document, limits: Loading) -> bool:
    end = 0
    for block in document.blocks:
        if block.kind not in _KINDS or not end <= block.start < block.end:
            return False
        end = block.end
    if "\0" in document.text or not end <= len(document.text) <= limits.max_text_characters:
        return False
    flat = document.metadata.values()
    return all(isinstance(value, str | int | float | bool) for value in flat)
