"""A process is killed at every fault point of the table; what it acknowledged is there, exactly."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, select

from faults.fault_points import POINTS, Point
from infra.database.schema import build_document, chunk, document, document_text
from infra.settings import Settings, load_settings
from retrieval import build_state
from retrieval.collections import Collection
from retrieval.indexes import open_index
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from retrieval.view import View
from service.wiring import Components

WORKER = Path(__file__).parent / "points_worker.py"
NAMES = tuple(f"note{number}.md" for number in range(16))
MOST_OCCURRENCES = 4
"""A point is passed several times in an operation; the kill comes at one of the first ones."""
CHANGES = 6
"""Documents written again before a compaction: several pieces, with tombstones."""


@dataclass(frozen=True)
class State:
    """What is acknowledged: the number in each document's text, and the build that answers."""

    live: int
    notes: Mapping[str, int] = field(default_factory=dict)

    def after(self, change: Mapping[str, Any]) -> State:
        kept = {name: number for name, number in self.notes.items() if name != change.get("delete")}
        return State(change.get("live", self.live), {**kept, **dict(change.get("write", []))})


@dataclass(frozen=True)
class Told:
    """What a process said before it ended."""

    possible: list[State]
    """Two while it is not said whether the last operation took place."""
    is_killed: bool


@pytest.fixture
def kill_settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        data_folder=tmp_path / "data",
        database_url=database_url,
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_state_is_the_last_acknowledged_one_after_a_kill_at_any_point(
    kill_settings: Settings, tmp_path: Path
) -> None:
    assert len(set(POINTS)) == len(POINTS) >= 50
    _kill_at(POINTS, kill_settings, tmp_path, kills=len(POINTS))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_state_is_the_last_acknowledged_one_after_a_kill_around_postgresql(
    kill_settings: Settings, tmp_path: Path
) -> None:
    """At the points around transactions; the others are between files, whatever the database."""
    points = [point for point in POINTS if point.is_around_transaction]
    assert len(points) >= 20
    _kill_at(points, kill_settings, tmp_path, kills=len(points))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tenth", range(10))
def test_state_is_the_last_acknowledged_one_after_a_thousand_kills(
    tenth: int, kill_settings: Settings, tmp_path: Path
) -> None:
    """In ten parts of a hundred, which go on in the table where the one before ended."""
    first = 100 * tenth % len(POINTS)
    turned = POINTS[first:] + POINTS[:first]
    _kill_at(turned, kill_settings, tmp_path, kills=100, seed=tenth)


def _kill_at(
    points: Sequence[Point],
    kill_settings: Settings,
    tmp_path: Path,
    *,
    kills: int,
    seed: int = 0,
) -> None:
    chance = random.Random(kills + seed)
    orders = Orders(kill_settings, tmp_path / "documents", chance)
    state = _filled(kill_settings, tmp_path / "documents")
    hit: Counter[Point] = Counter()
    with _nursery() as send:
        for turn in range(kills):
            point = points[turn % len(points)]
            for attempt in range(4):
                told = _told(send(orders.next(point, state, attempt=attempt)), state)
                state = _reopened(kill_settings, tmp_path / "opened", told.possible)
                if told.is_killed:
                    hit[point] += 1
                    break
    assert hit == Counter(points[turn % len(points)] for turn in range(kills))


class Orders:
    """What the next process is asked to do."""

    def __init__(self, settings: Settings, documents: Path, chance: random.Random) -> None:
        self._surroundings = {
            "data_folder": str(settings.data_folder),
            "database_url": settings.database_location,
            "documents": str(documents),
        }
        self._chance = chance
        self._last = 1000
        """Of the numbers in texts, each of which is used once."""

    def next(self, point: Point, state: State, *, attempt: int) -> dict[str, Any]:
        """A new document passes other points than one that is replaced, so both have their turn."""
        number = self._number()
        # Of `NAMES` some were deleted and are new again, which the third attempt rules out.
        name = self._chance.choice(sorted(state.notes) if attempt == 2 else NAMES)
        if attempt % 2:
            name = f"new{number}.md"
        return {
            **self._surroundings,
            "point": asdict(point),
            "occurrence": 1 if attempt else self._chance.choice([1, 1, 2, 3]),
            "write": [name, number],
            "changes": [[self._chance.choice(NAMES), self._number()] for _ in range(CHANGES)],
            "delete": self._chance.choice(sorted(state.notes)),
        }

    def _number(self) -> int:
        self._last += 1
        return self._last


@contextmanager
def _nursery() -> Iterator[Callable[[dict[str, Any]], list[list[str]]]]:
    """Send orders to a process that forks one for each; it answers with the words it said."""
    process = subprocess.Popen(
        [sys.executable, str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    sent, heard = process.stdin, process.stdout

    def send(order: dict[str, Any]) -> list[list[str]]:
        sent.write(json.dumps(order) + "\n")
        sent.flush()
        lines: list[list[str]] = []
        while not lines or lines[-1][0] != "ended":
            line = heard.readline()
            assert line, "the worker ended"
            lines.append(line.strip().split(" ", 1))
        return lines

    try:
        yield send
    finally:
        sent.close()
        process.wait(60)
        heard.close()


def _told(lines: list[list[str]], state: State) -> Told:
    possible = [state]
    for word, *rest in lines:
        if word == "wrote":
            name, number = rest[0].split()
            possible = [possible[-1].after({"write": [[name, int(number)]]})]
        elif word == "begun":
            possible.append(possible[-1].after(json.loads(rest[0])))
        elif word == "done":
            possible = possible[-1:]
    status = int(lines[-1][1])
    is_killed = any(word == "reached" for word, *_ in lines)
    assert status == (-signal.SIGKILL if is_killed else 0), lines
    return Told(possible, is_killed)


def _filled(settings: Settings, folder: Path) -> State:
    """Documents, a live build, and one that stands by."""
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_text(f"# Note\n\nIt bears token{number} in it.", encoding="utf-8")
    components = Components(settings)
    try:
        whole = components.collections.create("kill", components.recipe())
        list(components.ingester.ingest(whole, walk([folder])))
        recipe = components.recipe(embedder="hashing", embedder_options={"dimension": 96})
        begun = components.builds.start(whole, recipe)
        list(components.builder.fill(whole, begun))
        components.builds.swap(whole)
    finally:
        components.close()
    return State(begun.id, {name: number for number, name in enumerate(NAMES)})


def _reopened(settings: Settings, folder: Path, possible: list[State]) -> State:
    """Open everything anew, as after a restart, on a copy of the files; return what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(settings.data_folder, folder)
    opened = Components(settings.model_copy(update={"data_folder": folder}))
    try:
        whole = opened.collections.get("kill")
        stored = opened.documents.list(whole, limit=100).items
        with opened.database.read() as connection:
            builds = build_state.followed(connection, whole.id)
            assert [each.state for each in builds].count("live") == 1
            for each in builds:
                _check_build(connection, each)
            texts = {
                item.filename: "".join(
                    connection.execute(
                        select(document_text.c.text)
                        .where(document_text.c.document_id == item.id)
                        .order_by(document_text.c.piece)
                    ).scalars()
                )
                for item in stored
            }
        notes = {name: _number_in(text) for name, text in texts.items()}
        found = State(whole.build_id, notes)
        assert found in possible
        for item in stored:
            raw = opened.files.path(item.file_id).read_text(encoding="utf-8")
            assert _number_in(raw) == notes[item.filename]
        _check_index(opened, whole, found)
        return found
    finally:
        opened.close()


def _number_in(text: str) -> int:
    numbers = {word.removeprefix("token") for word in text.split() if word.startswith("token")}
    [number] = numbers
    return int(number)


def _check_build(connection: Connection, build: build_state.Build) -> None:
    """It holds whole documents, each in its current version; all of them, unless it is being built.

    Every chunk is the text at its span.
    """
    current = select(document.c.id, document.c.version).where(
        document.c.collection_id == build.collection_id
    )
    kept = select(build_document.c.document_id, build_document.c.version).where(
        build_document.c.build_id == build.id
    )
    versions = {row.id: row.version for row in connection.execute(current)}
    held = {row.document_id: row.version for row in connection.execute(kept)}
    assert held.items() <= versions.items()
    assert build.state == "building" or held == versions
    rows = connection.execute(
        select(
            chunk.c.document_id,
            chunk.c.text,
            chunk.c.start_char,
            chunk.c.end_char,
            chunk.c.vector,
            document_text.c.text.label("whole"),
        )
        .join(document_text, document_text.c.document_id == chunk.c.document_id)
        .where(chunk.c.build_id == build.id)
    ).all()
    assert {row.document_id for row in rows} == set(held)
    for row in rows:
        assert row.whole[row.start_char : row.end_char] == row.text
        assert len(row.vector) == 2 * build.recipe.dimension


def _check_index(opened: Components, whole: Collection, state: State) -> None:
    """The index as a new process opens it is one built from nothing, and finds what there is."""
    folder = opened.views.folder(whole)
    fresh = View(
        opened.database,
        open_index("local", folder.parent / "scratch", dimension=whole.recipe.dimension),
        collection=whole,
    )
    view = opened.views.get(whole)
    try:
        assert view.refresh() == fresh.refresh() == fresh.latest_sequence()
        vector = opened.embedders.of(whole.recipe, collection="kill").embed(
            ["a course"], kind="query"
        )[0]
        count = len(fresh.index)
        ours, theirs = view.index.dense(vector, count), fresh.index.dense(vector, count)
        assert len(view.index) == len(ours.chunk_ids) == count
        np.testing.assert_array_equal(ours.chunk_ids, theirs.chunk_ids)
        for name, number in state.notes.items():
            request = SearchRequest(f"token{number}", mode="lexical", limit=100)
            passages = opened.retriever.search(whole, request).passages
            assert {Path(passage.source).name for passage in passages} == {name}
    finally:
        fresh.close()
