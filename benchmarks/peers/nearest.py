"""What every vector index is asked to do: build, save, open again, answer one and many."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.peers.job import answer_lines


class Nearest(Protocol):
    """A vector index under test; `folder` is its own."""

    def build(self, vectors: Any, folder: Path) -> dict[str, Any]:
        """Index `(n, dimension)` float16 unit vectors and save them; returns what there is to say.

        Positions are the ids.
        """
        ...

    def open(self, folder: Path) -> None:
        """Open what was saved, in another process than built it."""
        ...

    def ask(self, question: Any, limit: int, effort: int) -> Any:
        """Return the positions of the nearest by inner product."""
        ...


def serve(make: Callable[..., Nearest]) -> None:
    """Answer requests with one index: `build`, `open`, `ask` or `load`, by the name in `do`."""
    made: list[Nearest] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(make(**request["options"]))
        index, folder = made[0], Path(request["folder"])
        if request["do"] == "build":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            start = time.perf_counter()
            said = index.build(np.load(request["vectors"], mmap_mode="r"), folder)
            seconds = time.perf_counter() - start
            return {"seconds": seconds, "bytes": folder_bytes(folder), **said}
        questions = np.load(request.get("questions", request["vectors"])).astype(np.float32)
        if request["do"] == "open":
            index.open(folder)
            index.ask(questions[0], request["limit"], request["effort"])
            return {}
        if request["do"] == "load":
            return _load(index, questions, request)
        return _ask(index, questions, request)

    answer_lines(answer)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, those with two names once."""
    files = {
        path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }
    return sum(files.values())


def resident_bytes() -> dict[str, int]:
    """Memory of this process as the kernel counts it; it may drop `file`, the mapped pages."""
    names = {"VmRSS": "all", "RssFile": "file"}
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = int(value.split()[0]) * 1024
    return found


def _ask(index: Nearest, questions: Any, request: dict[str, Any]) -> dict[str, Any]:
    found, milliseconds = [], []
    for question in questions:
        start = time.perf_counter()
        positions = index.ask(question, request["limit"], request["effort"])
        milliseconds.append((time.perf_counter() - start) * 1e3)
        found.append([int(position) for position in positions])
    return {"found": found, "milliseconds": milliseconds, "resident": resident_bytes()}


def _load(index: Nearest, questions: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Questions per second of several threads that ask without a pause."""
    counts = [0] * request["clients"]
    until = time.perf_counter() + request["seconds"]

    def client(number: int) -> None:
        while time.perf_counter() < until:
            question = questions[(counts[number] * len(counts) + number) % len(questions)]
            index.ask(question, request["limit"], request["effort"])
            counts[number] += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_second": sum(counts) / (time.perf_counter() - start)}
