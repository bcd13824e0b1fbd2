"""The artifact store beside DVC and beside what disk and hash allow, on large and small files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environments, processes
from benchmarks.options import Options
from benchmarks.processes import PeerFailed
from benchmarks.table import Bar, Row, Spread
from infra.artifacts.files import BUFFER_BYTES, Files, Writer
from infra.artifacts.store import open_store
from infra.database.engine import Database
from infra.database.migrate import upgrade

PEER = "dvc"
PEER_ROUNDS = 2
FOLDER_FILES = 1000
LARGE_BYTES = 1_000_000
WAIT_SECONDS = 3.0
"""Between writing the files and storing them: younger ones would be read again, for safety."""


@dataclass(frozen=True, slots=True)
class FileSet:
    """Files of random bytes, all of one size."""

    label: str
    files: int
    bytes: int
    again_bar: Bar | None = None
    checkout_bar: Bar | None = None


LARGE_FILES = 2_500
LARGE_FILE_BYTES = 8_000_000
DISK_COPIES = 8
"""So many times the large set must fit the free disk: ours, the peer's, the bound's, and room."""
MEMORY_COPIES = 3
"""And so many times the memory, for everybody is to read it from there."""
SMALL = FileSet(
    "100,000 files of 3 kB",
    100_000,
    3_000,
    again_bar=Bar(3.0, at_least=False),
    checkout_bar=Bar(10.0, at_least=False),
)
QUICK_SMALL = FileSet("2,000 files of 3 kB", 2_000, 3_000)
QUICK_FILES = 10
BOUND_BAR = Bar(70.0, at_least=True)
PEER_BAR = Bar(8.0, at_least=True)
MEMORY_BAR = Bar(300.0, at_least=False)


def run(options: Options) -> list[Row]:
    """Measure each set: ours in a process of its own, DVC in its environment, then the bound."""
    rows: list[Row] = []
    for number, files in enumerate(sets(options)):
        folder = options.folder / f"set{number}"
        source = folder / "source"
        options.say(f"writing {files.label}")
        _write(files, source)
        ours = []
        for turn in range(options.repeats):
            ours.append(_ours(source, folder / f"ours{turn}", options))
            _make_room(folder / f"ours{turn}", files)
        options.say("what the disk and the hash allow")
        disk, hashing = _disk_seconds(files, source, folder), _hash_seconds(source, options.threads)
        peers, note = _peer(files, source, folder, options=options)
        rows += _rows(files, ours, peers, note=note, bars=not options.quick)
        rows += _bound_rows(files, ours, disk, hashing, bars=not options.quick)
        _make_room(folder, files)
    return rows


def sets(options: Options) -> tuple[FileSet, ...]:
    """20 GB of large files where disk and memory allow it, less where not; and the small ones."""
    if options.quick:
        return (_large(QUICK_FILES), QUICK_SMALL)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = min(shutil.disk_usage(options.folder).free / DISK_COPIES, memory / MEMORY_COPIES)
    fitting = int(room / LARGE_FILE_BYTES) // 100 * 100
    return (_large(max(100, min(LARGE_FILES, fitting))), SMALL)


def _large(files: int) -> FileSet:
    size = f"{files * LARGE_FILE_BYTES / 1e9:g} GB in {files:,} files"
    return FileSet(size, files, LARGE_FILE_BYTES)


def _rows(
    files: FileSet, ours: Sequence[dict[str, float]], peers: Sequence[dict[str, float]], **how: Any
) -> list[Row]:
    note, bars = how["note"], how["bars"]

    def spread(rounds: Sequence[dict[str, float]], name: str) -> Spread | None:
        return Spread(tuple(one[name] for one in rounds)) if rounds and name in rounds[0] else None

    def row(label: str, name: str, bar: Bar | None = None) -> Row:
        peer = spread(peers, name)
        return Row(
            f"{files.label}: {label}",
            spread(ours, name),
            peer,
            "DVC" if peer else "",
            "s",
            "" if peer else note,
            bar if bars else None,
        )

    rows = [row("cold add", "add")]
    add = spread(peers, "add")
    if add is not None:
        times = Spread(tuple(add.median / one["add"] for one in ours))
        rows.append(
            Row(f"{files.label}: cold add, times DVC", times, bar=PEER_BAR if bars else None)
        )
    rows += [
        row("unchanged re-add", "again", files.again_bar),
        row("hard-link checkout", "checkout", files.checkout_bar),
        row("verify", "verify"),
    ]
    memory = Spread(tuple(one["megabytes"] for one in ours))
    rows.append(
        Row(f"{files.label}: peak memory", memory, unit="MB", bar=MEMORY_BAR if bars else None)
    )
    return rows


def _bound_rows(
    files: FileSet, ours: Sequence[dict[str, float]], disk: float, hashing: float, *, bars: bool
) -> list[Row]:
    bound = max(disk, hashing)
    shares = Spread(tuple(100 * bound / one["add"] for one in ours))
    return [
        Row(
            f"{files.label}: share of the bound min(disk, hash)",
            shares,
            unit="%",
            note=f"disk {disk:.2f} s, hash {hashing:.2f} s",
            bar=BOUND_BAR if bars else None,
        )
    ]


def _write(files: FileSet, source: Path) -> None:
    chance = random.Random(7)
    for number in range(files.files):
        folder = source / f"{number // FOLDER_FILES:04d}"
        if number % FOLDER_FILES == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:06d}.bin").write_bytes(chance.randbytes(files.bytes))
    os.sync()
    time.sleep(WAIT_SECONDS)


def _ours(source: Path, folder: Path, options: Options) -> dict[str, float]:
    options.say(f"ours, in {folder.name}")
    _warm(source)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.artifacts", str(source), str(folder)],
        cwd=environments.REQUIREMENTS.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _peer(
    files: FileSet, source: Path, folder: Path, *, options: Options
) -> tuple[list[dict[str, float]], str]:
    python = processes.find(PEER, options) if options.peers else None
    if python is None:
        return [], environments.NOT_INSTALLED if options.peers else "left out"
    rounds = []
    try:
        for turn in range(min(options.repeats, PEER_ROUNDS)):
            options.say(f"DVC, round {turn + 1}")
            _warm(source)
            home = folder / f"dvc{turn}"
            with processes.running(PEER, python, options) as peer:
                rounds.append(peer.ask({"source": str(source.absolute()), "repository": str(home)}))
            _make_room(home, files)
    except PeerFailed as error:
        return rounds, str(error)
    return rounds, ""


def _make_room(folder: Path, files: FileSet) -> None:
    """Remove large files only: after a mass removal, file systems are slow to make new files."""
    if files.bytes >= LARGE_BYTES:
        shutil.rmtree(folder)


def _disk_seconds(files: FileSet, source: Path, folder: Path) -> float:
    """The time to read every byte and write it once, durably, without hashing.

    One archive is the fastest way for small files; of large ones, it or copies by many threads.
    """
    _warm(source)
    archive, copies = folder / "bound.tar", folder / "bound"
    seconds = []
    tar = shutil.which("tar")
    if tar is None or files.bytes >= LARGE_BYTES:
        seconds.append(_timed(lambda: _direct_copy(source, copies)))
        shutil.rmtree(copies)
    if tar is not None:
        command = [tar, "--create", "--file", str(archive), "--directory", str(source), "."]

        def work() -> None:
            subprocess.run(command, check=True)
            with archive.open("rb") as file:
                os.fsync(file.fileno())

        seconds.append(_timed(work))
        archive.unlink()
    return min(seconds)


def _direct_copy(source: Path, target: Path) -> None:
    """Copy past the page cache with many threads: the most this disk takes from large files."""
    target.mkdir()

    def copy(numbered: tuple[int, Path]) -> None:
        number, path = numbered
        with (
            path.open("rb", buffering=0) as file,
            Writer(target / str(number), files=Files()) as writer,
        ):
            while count := os.readv(file.fileno(), [writer.space()]):
                writer.advance(count)
            writer.finish()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copy, enumerate(_files(source))))


def _hash_seconds(source: Path, threads: int) -> float:
    """The time to read and hash every file with as many threads as there are cores."""
    _warm(source)

    def digest(path: Path) -> bytes:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").digest()

    def work() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(digest, _files(source)))

    return min(_timed(work), _timed(lambda: [digest(path) for path in _files(source)]))


def _files(source: Path) -> list[Path]:
    return [Path(folder, name) for folder, _, names in os.walk(source) for name in names]


def _warm(source: Path) -> None:
    """Everybody reads from memory: the disk under test is the one that is written to."""
    for path in _files(source):
        with path.open("rb", buffering=0) as file:
            while file.read(BUFFER_BYTES):
                pass


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _measure(source: Path, folder: Path) -> dict[str, float]:
    """What `_ours` runs in a process of its own, so that the peak of memory is the store's."""
    folder.mkdir(parents=True)
    database = Database(f"sqlite:///{folder / 'ragstone.db'}")
    upgrade(database)
    store = open_store(folder / "store", database)
    seconds = {
        "add": _timed(lambda: store.put(source, "dataset/measured")),
        "again": _timed(lambda: store.put(source, "dataset/measured")),
        "checkout": _timed(lambda: store.checkout("dataset/measured", folder / "out")),
        "verify": _timed(lambda: store.verify("dataset/measured")),
    }
    database.close()
    return {**seconds, "megabytes": _peak_megabytes()}


def _peak_megabytes() -> float:
    # Not `getrusage`: its peak counts the parent's memory from before this program was loaded.
    lines: Iterable[str] = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]))))
