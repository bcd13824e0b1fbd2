"""The process that parses: reads requests from its standard input, writes documents as JSON."""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import struct
import sys
import threading
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from infra.errors import MissingDependency, UnreadableDocument

if TYPE_CHECKING:
    from infra.contracts import Document
    from infra.settings import Loading

LENGTH = struct.Struct(">Q")
"""Before each message: how many bytes it has."""

_SPARE_SECONDS = 5.0
_WORN_SHARE = 3
_TOO_LARGE = "Reading it needs more memory than loading.memory_bytes"


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Settings are not imported: they cost more than the rest of the start.
    limits = cast("Loading", SimpleNamespace(**json.loads(sys.argv[1])))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints must not reach the protocol
    from retrieval.loaders import load

    sys.excepthook = _last_words(answers)
    requests = _requests()
    _confine(limits.memory_bytes)
    _write(answers, {"ready": True})
    while (request := requests.get()) is not None:
        # Should the parent be gone, or stopped, this process still ends.
        signal.setitimer(signal.ITIMER_REAL, limits.timeout_seconds + _SPARE_SECONDS)
        try:
            document = load(Path(request["path"]), limits, filename=request["filename"])
            answer = to_json(document)
        except UnreadableDocument as error:
            answer = {"error": error.code, "message": error.message}
        except OSError as error:
            reason = error.strerror or type(error).__name__
            answer = {"error": "unreadable", "message": f"It cannot be opened: {reason}"}
        except MissingDependency as error:
            answer = {"error": "missing_dependency", "message": error.message}
        except MemoryError:
            answer = {"error": "exceeds_limit", "message": _TOO_LARGE}
        answer["last"] = worn = _is_worn(limits.memory_bytes)
        _write(answers, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if worn:
            return


def to_json(document: Document) -> dict[str, Any]:
    """The document as plain values, `blocks` as rows."""
    return {
        "text": document.text,
        "blocks": [[b.kind, b.start, b.end, b.level, b.page] for b in document.blocks],
        "media_type": document.media_type,
        "title": document.title,
        "metadata": dict(document.metadata),
        "warnings": list(document.warnings),
    }


def _requests() -> queue.SimpleQueue[dict[str, Any] | None]:
    """What arrives on standard input; when it ends, as the parent does, so does this process."""
    requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def receive() -> None:
        while len(head := sys.stdin.buffer.read(LENGTH.size)) == LENGTH.size:
            requests.put(json.loads(sys.stdin.buffer.read(LENGTH.unpack(head)[0])))
        os._exit(0)  # at once: the main thread may be deep in a parser

    threading.Thread(target=receive, daemon=True).start()
    return requests


def _confine(memory_bytes: int) -> None:
    """Let the parsers have so much memory, and write no files."""
    page = resource.getpagesize()
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * page
    for kind, limit in (
        (resource.RLIMIT_AS, taken + memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))


def _is_worn(memory_bytes: int) -> bool:
    """Whether one document has swollen the process so much that a fresh one is better."""
    # Not ru_maxrss, which a process inherits: below a parent with a model it would always be large.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    return peak > memory_bytes // _WORN_SHARE


def _write(answers: BinaryIO, answer: dict[str, Any]) -> None:
    payload = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    answers.write(LENGTH.pack(len(payload)) + payload)
    answers.flush()


def _last_words(answers: BinaryIO) -> Any:
    """An error that no loader foresaw ends the process, after saying which document it was."""

    def hook(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        message = f"Its parser failed: {kind.__name__}: {str(error)[:300]}"
        answer = {"error": "damaged", "message": message, "last": True}
        if issubclass(kind, MemoryError):
            answer |= {"error": "exceeds_limit", "message": _TOO_LARGE}
        _write(answers, answer)

    return hook


if __name__ == "__main__":
    main()
