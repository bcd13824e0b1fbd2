"""An ingest of real documents is killed at random moments; nothing acknowledged is ever lost."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from infra.database.schema import change, chunk, document, document_text
from infra.errors import UnreadableDocument
from infra.settings import Settings, load_settings
from retrieval.chunking import split
from retrieval.collections import Collection
from retrieval.indexes import open_index
from retrieval.ingest import embedding_text
from retrieval.view import View
from service.wiring import Components

WORKER = Path(__file__).parent / "ingest_worker.py"
KINDS = ("markdown", "docx", "html", "eml", "csv", "xlsx", "pptx")
MAX_BYTES = 60_000
QUERIES = ("emphasized text", "revenue of the year", "stanley cup winners", "Lorem ipsum", "email")


@dataclass
class Expected:
    """What one document becomes when nothing goes wrong."""

    text: str
    chunks: list[tuple[int, int, str]]
    embedded: set[str]


@dataclass
class Run:
    """What one process said before it ended."""

    committed: list[str] = field(default_factory=list)
    embedded: set[str] = field(default_factory=set)
    finished: bool = False


@pytest.fixture(scope="module")
def corpus(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for kind in KINDS:
        for path in sorted((shared_data / "documents" / kind).iterdir()):
            if path.stat().st_size <= MAX_BYTES:
                shutil.copy(path, folder / f"{kind}-{path.name}")
    assert len(list(folder.iterdir())) >= 40
    return folder


@pytest.fixture
def kill_settings(database_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        data_folder=tmp_path / "data",
        database_url=database_url,
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )


def rounds() -> list[object]:
    return [
        pytest.param(12, id="short"),
        pytest.param(200, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ]


@pytest.mark.parametrize("kills", rounds())
def test_killed_ingest_loses_nothing_it_acknowledged(
    kills: int,
    corpus: Path,
    kill_settings: Settings,
    open_components: Callable[[Settings], Components],
) -> None:
    chance = random.Random(kills)
    components = open_components(kill_settings)
    collection = components.collections.create("kill", components.recipe())
    expected = _extract_all(components, corpus)
    duration = 1.0
    acknowledged: set[str] = set()
    done = 0
    while done < kills:
        run, seconds = _ingest_until_killed(kill_settings, corpus, chance.uniform(0, duration))
        finished_before = set().union(*(expected[uri].embedded for uri in acknowledged), set())
        others = set().union(
            *(expected[uri].embedded for uri in expected if uri not in acknowledged), set()
        )
        assert not (run.embedded & finished_before) - others, "embedded again what was finished"
        acknowledged |= set(run.committed)
        _check(components, collection, expected, acknowledged)
        if run.finished:
            # The whole corpus went through before the kill: start over, and aim earlier.
            duration = max(0.3, seconds)
            _check_complete(components, collection, expected)
            for stored in components.documents.list(collection, limit=1000).items:
                components.documents.delete(collection, stored.file_id)
            acknowledged = set()
        else:
            done += 1
    run, _ = _ingest_until_killed(kill_settings, corpus, None)
    assert run.finished
    _check_complete(components, collection, expected)


def _ingest_until_killed(
    settings: Settings, corpus: Path, after_seconds: float | None
) -> tuple[Run, float]:
    process = subprocess.Popen(
        [
            sys.executable,
            str(WORKER),
            str(settings.data_folder),
            settings.database_location,
            str(corpus),
        ],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    started = time.monotonic()
    if after_seconds is not None:
        # The pipe holds what is said meanwhile; it is read after the kill.
        deadline = started + after_seconds
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    run = Run()
    for line in output.decode().splitlines():
        word, _, rest = line.partition(" ")
        if word == "committed":
            run.committed.append(rest.split(" ", 1)[1])
        elif word == "embedded":
            run.embedded.add(rest)
        elif word == "finished":
            run.finished = True
    return run, time.monotonic() - started


def _extract_all(components: Components, corpus: Path) -> dict[str, Expected]:
    expected = {}
    for path in sorted(corpus.iterdir()):
        try:
            content = components.reader.read(path, filename=path.name)
        except UnreadableDocument:
            continue
        pieces = split(
            content,
            components.embedder.token_spans(content.text),
            max_tokens=60,
            overlap_tokens=10,
        )
        expected[path.as_uri()] = Expected(
            text=content.text,
            chunks=[(piece.start_char, piece.end_char, piece.text) for piece in pieces],
            embedded={
                hashlib.sha256(embedding_text(content, piece).encode()).hexdigest()
                for piece in pieces
            },
        )
    assert len(expected) >= 35
    return expected


def _check(
    components: Components,
    collection: Collection,
    expected: dict[str, Expected],
    acknowledged: set[str],
) -> None:
    """Whole documents only, every acknowledged one among them, and an index that agrees."""
    with components.database.read() as connection:
        numbers = {
            row.source: row.id
            for row in connection.execute(
                select(document.c.source, document.c.id).where(
                    document.c.collection_id == collection.id
                )
            )
        }
        assert acknowledged <= set(numbers), "an acknowledged document is gone"
        for uri, number in numbers.items():
            pieces = connection.execute(
                select(document_text.c.text)
                .where(document_text.c.document_id == number)
                .order_by(document_text.c.piece)
            ).scalars()
            assert "".join(pieces) == expected[uri].text, f"half a text: {uri}"
            stored = connection.execute(
                select(chunk.c.start_char, chunk.c.end_char, chunk.c.text)
                .where(chunk.c.document_id == number)
                .order_by(chunk.c.ordinal)
            )
            assert [tuple(row) for row in stored] == expected[uri].chunks, f"half: {uri}"
        unlogged = connection.execute(
            select(chunk.c.id).where(chunk.c.id.not_in(select(change.c.chunk_id)))
        )
        assert unlogged.scalars().all() == [], "a chunk that no view will ever see"
    _check_index(components, collection)


def _check_index(components: Components, collection: Collection) -> None:
    """The index as a new process would open it equals one built from nothing."""
    folder = components.views.folder(collection)
    scratch = folder.parent / "scratch"
    opened = View(
        components.database, open_index("local", folder, dimension=256), collection=collection
    )
    fresh = View(
        components.database, open_index("local", scratch, dimension=256), collection=collection
    )
    try:
        assert opened.refresh() == fresh.refresh() == fresh.latest_sequence()
        assert len(opened.index) == len(fresh.index)
        for query in QUERIES:
            vector = components.embedder.embed([query], kind="query")[0]
            ours, theirs = opened.index.dense(vector, 20), fresh.index.dense(vector, 20)
            np.testing.assert_array_equal(ours.chunk_ids, theirs.chunk_ids)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
            found = opened.index.lexical(query, 1000).chunk_ids
            assert set(found) == set(fresh.index.lexical(query, 1000).chunk_ids)
    finally:
        opened.close()
        fresh.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _check_complete(
    components: Components, collection: Collection, expected: dict[str, Expected]
) -> None:
    stored = components.documents.list(collection, limit=1000).items
    assert {item.source for item in stored} == set(expected)
