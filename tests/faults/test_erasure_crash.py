"""What was deleted is found by nothing and, once compacted, in no byte, wherever a kill struck."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import NotFound
from infra.settings import Settings, load_settings
from retrieval.search import SearchRequest
from retrieval.sources import Source
from service.wiring import Components

WORKER = Path(__file__).parent / "erasure_worker.py"
CANARY = "quetzalqvw7731"
"""Written nowhere but in the documents that are removed."""
FAULTS = (
    # what is done, the step it is killed after, and at which time of it
    ("erase", "noted", 1),
    ("erase", "document", 1),
    ("erase", "document", 2),
    ("erase", "bytes", 1),
    ("erase", "quotes", 1),
    ("erase", "removed", 1),
    ("erase", "finished", 1),
    ("erase", "swept", 1),
    ("erase", "index", 1),
    ("erase", "index", 2),
    ("erase", "strays", 1),
    ("erase", "quotes again", 1),
    ("erase", "database", 1),
    ("erase", "compacted", 1),
    ("delete", "noted", 1),
    ("delete", "document", 1),
    ("delete", "bytes", 1),
    ("collection", "noted", 1),
    ("collection", "bytes", 1),
)
SHORT = (
    ("erase", "noted", 1),
    ("erase", "document", 1),
    ("erase", "bytes", 1),
    ("erase", "removed", 1),
    ("erase", "index", 1),
    ("erase", "database", 1),
    ("delete", "document", 1),
    ("collection", "noted", 1),
)


def settings_of(folder: Path) -> Settings:
    return load_settings(
        data_folder=folder,
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two builds of a collection, checkpointed, the canary in it many times."""
    folder = tmp_path_factory.mktemp("filled")
    components = Components(settings_of(folder / "data"))
    whole = components.collections.create("secrets", components.recipe())
    sources = []
    for number in range(8):
        path = folder / f"wall{number}.md"
        words = " ".join(f"Course {row} of wall {number} is ragstone." for row in range(60))
        path.write_text(f"# Wall {number}\n\n{words}")
        sources.append(Source(path.as_uri(), path, path.name, {"secret": False}))
    for number in range(2):
        path = folder / f"{CANARY}{number}.md"
        words = " ".join(f"The {CANARY} of {row} is hidden." for row in range(60))
        path.write_text(f"# {CANARY}\n\n{words}")
        named = {"secret": True, "owner": CANARY}
        sources.append(Source(path.as_uri(), path, path.name, named))
    list(components.ingester.ingest(whole, sources))
    recipe = components.recipe(embedder="hashing", embedder_options={"dimension": 48})
    begun = components.builds.start(whole, recipe)
    list(components.builder.fill(whole, begun))
    components.builds.swap(whole)
    for build in components.builds.list(whole):
        view = components.views.get(build.of(whole))
        view.refresh()
        view.checkpoint(at_least=1)
    components.close()
    assert bytes_with_canary(folder / "data"), "the scan would not find it if it were there"
    return folder / "data"


def bytes_with_canary(folder: Path) -> list[str]:
    """Return the files that hold the canary, by a scan of their bytes and names."""
    wanted = CANARY.encode()
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (wanted in path.read_bytes().lower() or CANARY in path.name)
    ]


def run(data: Path, action: str, step: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(data), action, step, str(count)],
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
    )


def check(data: Path, *, action: str, finishes: bool = True) -> None:
    """Open everything as after a restart; nothing finds the canary, and compacted no byte is it."""
    opened = Components(settings_of(data))
    try:
        if finishes:
            opened.erasure.finish()
        try:
            whole = opened.collections.get("secrets")
        except NotFound:
            assert action == "collection"
            whole = opened.collections.create("other", opened.recipe())
        else:
            search_everywhere(opened)
            kept = opened.documents.list(whole, limit=100).items
            assert len(kept) == (0 if action == "collection" else 8)
        opened.compactor.compact(whole)
        assert bytes_with_canary(data) == []
        receipts = opened.erasure.receipts.list().items
        assert receipts
        assert {each.state for each in receipts} <= {"removed", "compacted"}
        erased = {each.id for receipt in receipts for each in receipt.documents}
        assert len(erased) == (10 if action == "collection" else 2)
    finally:
        opened.close()
    assert bytes_with_canary(data) == []


def search_everywhere(opened: Components) -> None:
    whole = opened.collections.get("secrets")
    for mode in ("hybrid", "dense", "lexical"):
        request = SearchRequest(f"the {CANARY} of wall 3", limit=50, mode=mode)
        for build in opened.builds.list(whole):
            found = opened.retriever.search(build.of(whole), request).passages
            assert CANARY not in repr(found).replace(request.text, "")
    said = [repr(opened.documents.list(whole, limit=100)), repr(opened.files.list(limit=1000))]
    assert CANARY not in "".join(said)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault,
            id="-".join(map(str, fault)),
            marks=[] if fault in SHORT else [pytest.mark.slow],
        )
        for fault in FAULTS
    ],
)
def test_kill_at_a_step_leaves_nothing_of_what_was_deleted(
    fault: tuple[str, str, int], filled: Path, tmp_path: Path
) -> None:
    action, step, count = fault
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    assert run(data, action, step, count).wait(timeout=120) == -signal.SIGKILL, "it was not hit"
    # Deleting a file at a time, the kill comes before the others are begun.
    if action == "delete":
        assert run(data, action, "never", 0).wait(timeout=120) == 0
    check(data, action=action)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_any_moment_leave_nothing_of_what_was_deleted(
    filled: Path, tmp_path: Path
) -> None:
    chance = random.Random(7)
    for number in range(60):
        data = tmp_path / str(number)
        shutil.copytree(filled, data)
        process = run(data, "erase", "never", 0)
        time.sleep(chance.uniform(0.5, 4))
        process.kill()
        process.wait(timeout=60)
        assert run(data, "delete", "never", 0).wait(timeout=120) == 0  # what was never begun
        check(data, action="erase")
        shutil.rmtree(data)


def test_open_service_lets_go_of_what_another_process_compacts(
    filled: Path, tmp_path: Path, open_components: Callable[[Settings], Components]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(filled, data)
    serving = open_components(settings_of(data))
    whole = serving.collections.get("secrets")
    request = SearchRequest(f"the {CANARY}", limit=10)
    assert CANARY in repr(serving.retriever.search(whole, request).passages)
    assert run(data, "erase", "never", 0).wait(timeout=120) == 0
    assert bytes_with_canary(data) == []
    found = serving.retriever.search(whole, request).passages
    assert CANARY not in repr([each.text for each in found])
    view = serving.views.get(whole)
    assert view.compactions == 1
    view.checkpoint(at_least=0)
    assert bytes_with_canary(data) == []
