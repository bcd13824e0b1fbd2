"""Rebuilding, swapping and writing are killed at random moments; what was said holds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, select

from infra.database.schema import build_document, chunk, collection, document, document_text
from infra.settings import Settings, load_settings
from retrieval import build_state
from retrieval.build_state import Build
from retrieval.collections import Collection
from retrieval.embedders.hashing import HashingEmbedder
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

WORKER = Path(__file__).parent / "builds_worker.py"
DOCUMENTS = 12
LONGEST_SECONDS = 2.5


@dataclass
class Said:
    """What all processes so far have acknowledged."""

    live: set[int]
    """The build that answers; two while the swap that was begun may have been committed."""
    notes: dict[str, int] = field(default_factory=dict)
    built: set[tuple[int, int]] = field(default_factory=set)
    swaps: int = 0

    def hear(self, output: str) -> None:
        for line in output.splitlines():
            word, *rest = line.split()
            if word == "swapping":
                self.live.add(int(rest[0]))
            elif word == "live":
                self.live = {int(rest[0])}
                self.swaps += 1
            elif word == "committed":
                self.notes[rest[0]] = int(rest[1])
            elif word == "built":
                self.built.add((int(rest[0]), int(rest[1])))


@pytest.fixture
def kill_settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        data_folder=tmp_path / "data",
        database_url=database_url,
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(4, id="short"),
        pytest.param(250, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
    ],
)
def test_killed_build_or_swap_leaves_what_was_last_acknowledged(
    kills: int,
    kill_settings: Settings,
    tmp_path: Path,
    open_components: Callable[[Settings], Components],
) -> None:
    chance = random.Random(kills)
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(DOCUMENTS):
        lines = (f"Course {row} of wall {number} is ragstone." for row in range(40))
        (folder / f"wall{number}.md").write_text(f"# Wall {number}\n\n{' '.join(lines)}")
    components = open_components(kill_settings)
    whole = components.collections.create("kill", components.recipe())
    list(components.ingester.ingest(whole, walk([folder])))
    said = Said({whole.build_id})
    for number in range(kills):
        first = "live" if number % 4 == 3 else "ready"  # soon after a swap, or at any moment
        longest = 0.2 if first == "live" else LONGEST_SECONDS
        output = _killed(kill_settings, folder, chance.uniform(0, longest), first=first)
        said.hear(output)
        _check(kill_settings, tmp_path / "opened", said)
    assert said.swaps >= kills // 4
    assert said.notes
    assert said.built


def _killed(settings: Settings, folder: Path, after_seconds: float, *, first: str) -> str:
    """Kill a process so long after the first line that begins with a word; return its lines."""
    process = subprocess.Popen(
        [
            sys.executable,
            str(WORKER),
            str(settings.data_folder),
            settings.database_location,
            str(folder),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
    )
    assert process.stdout is not None
    heard = [process.stdout.readline()]
    assert heard == [b"ready\n"]
    while not heard[-1].startswith(first.encode()):
        heard.append(process.stdout.readline())
        assert heard[-1], "it ended by itself"
    deadline = time.monotonic() + after_seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, "it ended by itself"
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    return b"".join([*heard[1:], output]).decode()


def _check(settings: Settings, folder: Path, said: Said) -> None:
    """Open everything anew, as after a restart, on a copy of the index files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(settings.data_folder, folder)
    opened = Components(
        settings.model_copy(update={"data_folder": folder, "database_url": settings.database_url})
    )
    try:
        whole = opened.collections.get("kill")
        assert whole.build_id in said.live, "another build answers than was acknowledged"
        said.live = {whole.build_id}
        with opened.database.read() as connection:
            builds = build_state.every(connection, whole.id)
            states = {each.id: each.state for each in builds}
            assert [number for number, state in states.items() if state == "live"] == [
                whole.build_id
            ]
            assert sum(state == "standby" for state in states.values()) <= 1
            assert sum(state == "building" for state in states.values()) <= 1
            for each in builds:
                if each.state in build_state.FOLLOWED:
                    _check_build(connection, each)
            _check_acknowledged(connection, said, states)
        _check_answers(opened, whole, said)
    finally:
        opened.close()


def _check_build(connection: Connection, build: Build) -> None:
    """Whatever a build holds of a document is that document's current version, whole."""
    held = {
        row.document_id: row.version
        for row in connection.execute(
            select(build_document).where(build_document.c.build_id == build.id)
        )
    }
    versions = {
        row.id: row.version
        for row in connection.execute(
            select(document.c.id, document.c.version).where(
                document.c.collection_id == build.collection_id
            )
        )
    }
    assert held.items() <= versions.items()
    if build.state != "building":
        assert held == versions
    rows = connection.execute(
        select(chunk).where(chunk.c.build_id == build.id).order_by(chunk.c.id)
    ).all()
    assert {row.document_id for row in rows} == set(held)
    embedder = HashingEmbedder(build.recipe.dimension, 256)
    for row in rows[:: max(1, len(rows) // 10)]:
        text = connection.execute(
            select(document_text.c.text).where(document_text.c.document_id == row.document_id)
        ).scalar_one()
        assert text[row.start_char : row.end_char] == row.text
        [vector] = embedder.embed([f"{row.heading}\n{row.text}"], kind="document")
        np.testing.assert_array_equal(np.frombuffer(row.vector, "<f2"), vector.astype("<f2"))


def _check_acknowledged(connection: Connection, said: Said, states: Mapping[int, str]) -> None:
    held = {(row.build_id, row.document_id) for row in connection.execute(select(build_document))}
    kept = {number for number, state in states.items() if state in build_state.FOLLOWED}
    assert {pair for pair in said.built if pair[0] in kept} <= held
    assert connection.execute(select(collection.c.live_build_id)).scalar_one() in kept


def _check_answers(opened: Components, whole: Collection, said: Said) -> None:
    view = opened.views.get(whole)
    view.refresh()
    with opened.database.read() as connection:
        rows = connection.execute(
            select(chunk.c.id).where(chunk.c.build_id == whole.build_id)
        ).all()
    assert len(view.index) == len(rows)
    for name, number in said.notes.items():
        found = opened.retriever.search(whole, SearchRequest(f"note {number}", limit=10)).passages
        mine = [passage.text for passage in found if passage.source.endswith(name)]
        assert len(mine) == 1
        # The write after the last one that was acknowledged may have been committed.
        assert int(mine[0].split("note ")[1].split()[0]) >= number
