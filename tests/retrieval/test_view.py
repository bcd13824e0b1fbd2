"""A view never goes back, waits no longer than it says, and outlives its files."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from retrieval.collections import Collection
from retrieval.index_folders import Folders
from retrieval.search import SearchRequest
from retrieval.sources import Source
from retrieval.view import View
from service.wiring import Components


def write(components: Components, into: Collection, folder: Path, name: str, text: str) -> int:
    path = folder / name
    path.write_text(text)
    events = components.ingester.ingest(into, [Source(f"test:{name}", path, name)])
    return max(getattr(event, "sequence", 0) for event in events)


@pytest.fixture
def walls(components: Components, tmp_path: Path) -> Collection:
    whole = components.collections.create("walls", components.recipe())
    for number in range(3):
        write(components, whole, tmp_path, f"w{number}.txt", f"Wall {number} is of ragstone.")
    return whole


def test_watermark_does_not_fall_when_the_index_is_written_anew(
    components: Components, walls: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = components.views.get(walls)
    view.refresh()
    real, seen = View._fill, []

    def filled(self: View, index: Any, *more: Any, **named: Any) -> Any:
        result = real(self, index, *more, **named)
        if index is not self.index and not seen:
            seen.append(write(components, walls, tmp_path, "late.txt", "The latecomer is a moat."))
            view.refresh()
        return result

    monkeypatch.setattr(View, "_fill", filled)
    view.compact()
    assert view.compactions == 1
    assert view.index.watermark >= seen[0]


def test_two_processes_that_compact_at_once_leave_an_index(
    components: Components,
    walls: Collection,
    tmp_path: Path,
    open_components: Callable[[Settings], Components],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = open_components(components.settings)
    both = threading.Barrier(2)
    real = Folders.open

    def opened(self: Folders, number: int, **named: Any) -> Any:
        if named.get("anew"):
            with suppress(threading.BrokenBarrierError):
                both.wait(1)
        return real(self, number, **named)

    views = [each.views.get(walls) for each in (components, other)]
    for view in views:
        view.refresh()
    monkeypatch.setattr(Folders, "open", opened)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(View.compact, views))
    assert sorted(view.compactions for view in views) == [1, 2]
    write(components, walls, tmp_path, "late.txt", "The latecomer is a moat.")
    for each in (components, other):
        found = each.retriever.search(walls, SearchRequest("latecomer moat")).passages
        assert found[0].source == "test:late.txt"
        each.views.get(walls).checkpoint(at_least=1)
    assert [view.compactions for view in views] == [2, 2]
    beside = components.views.folder(walls).parent.iterdir()
    assert [path.name for path in beside if path.is_dir()] == [f"{walls.build_id}.2"]


def test_index_whose_folder_is_removed_is_made_again(
    components: Components, walls: Collection, tmp_path: Path
) -> None:
    view = components.views.get(walls)
    view.refresh()
    shutil.rmtree(components.views.folder(walls))
    write(components, walls, tmp_path, "late.txt", "The latecomer is a moat.")
    found = components.retriever.search(walls, SearchRequest("latecomer moat")).passages
    assert found[0].source == "test:late.txt"


def test_folder_of_a_reclaimed_build_is_a_stray(components: Components, walls: Collection) -> None:
    begun = components.builds.start(walls, components.recipe(chunk_tokens=30))
    components.builds.retire(walls, begun.id)
    folder = components.views.folder(walls).parent / str(begun.id)
    folder.mkdir(parents=True)
    (folder / "left").write_text("canary")
    components.compactor.compact(walls)
    assert not folder.exists()


def test_waiting_for_a_long_log_ends_in_time(
    components: Components, walls: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = components.views.get(walls)
    view.refresh()
    for number in range(3, 7):
        write(components, walls, tmp_path, f"w{number}.txt", f"Wall {number} is of ragstone.")
    real = type(view.index).apply

    def slow(self: Any, changes: Any) -> None:
        time.sleep(0.5)
        real(self, changes)

    monkeypatch.setattr(type(view.index), "apply", slow)
    monkeypatch.setattr("retrieval.view.BATCH_CHANGES", 1)
    started = time.monotonic()
    assert not view.catch_up(view.latest_sequence(), timeout_seconds=0.6)
    assert time.monotonic() - started < 1.4
