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

from infra.errors import NotReady
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
    real, applied = type(view.index).apply, []

    def slow(self: Any, changes: Any) -> None:
        time.sleep(0.5)
        applied.append(changes)
        real(self, changes)

    monkeypatch.setattr(type(view.index), "apply", slow)
    monkeypatch.setattr("retrieval.view.BATCH_CHANGES", 1)
    assert not view.catch_up(view.latest_sequence(), timeout_seconds=0.6)
    assert 0 < len(applied) < 4


def test_a_collection_is_found_whole_or_not_while_it_is_compacted(
    components: Components, walls: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, told = components.views.get(walls), []
    real = View._adopt

    def adopted(self: View, *more: Any) -> None:
        # The next index is whole, the one in use holds nothing.
        with monkeypatch.context() as hurried:
            hurried.setattr("retrieval.search.LAG_TIMEOUT_SECONDS", 0.0)
            with pytest.raises(NotReady, match="is being opened"):
                components.retriever.search(walls, SearchRequest("Which wall?"))
        told.append(view.is_complete)
        real(self, *more)

    monkeypatch.setattr(View, "_adopt", adopted)
    view.compact()
    assert (told, view.is_complete) == ([False], True)
    assert len(components.retriever.search(walls, SearchRequest("Which wall?")).passages) == 3


def test_who_comes_second_waits_no_longer_than_it_says(
    components: Components, walls: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = components.views.get(walls)  # never filled: who comes first fills it to the end
    apply, follow, both = type(view.index).apply, View._follow, threading.Barrier(2)

    def slow(self: Any, changes: Any) -> None:
        time.sleep(1.0)
        apply(self, changes)

    def together(self: View, **named: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(1)
        both.abort()
        follow(self, **named)

    def wait(_: int) -> tuple[bool, float]:
        started = time.monotonic()
        return view.catch_up(timeout_seconds=0.3), time.monotonic() - started

    monkeypatch.setattr(type(view.index), "apply", slow)
    monkeypatch.setattr(View, "_follow", together)
    monkeypatch.setattr("retrieval.view.BATCH_CHANGES", 1)
    with ThreadPoolExecutor(2) as pool:
        second, first = sorted(pool.map(wait, range(2)))
    assert (second[0], first[0]) == (False, True)
    assert second[1] < 2 < 3 <= first[1]


def test_waiting_for_an_index_that_another_process_writes_ends_in_time(
    components: Components, walls: Collection, tmp_path: Path
) -> None:
    view = components.views.get(walls)
    view.refresh()
    folder = components.views.folder(walls)
    shutil.rmtree(folder)
    late = write(components, walls, tmp_path, "late.txt", "The latecomer is a moat.")
    other = Folders(folder.parent, walls, plugin="local", options={}, compactions=0)
    with ThreadPoolExecutor(1) as pool:
        with other.turn():
            waited = pool.submit(view.catch_up, late, timeout_seconds=0.3)
            assert waited.result(timeout=5) is False
        assert view.catch_up(late, timeout_seconds=10)


@pytest.mark.parametrize("finds_it", [True, False])
def test_a_view_opened_while_its_index_is_compacted_is_of_the_new_one(
    components: Components,
    walls: Collection,
    open_components: Callable[[Settings], Components],
    monkeypatch: pytest.MonkeyPatch,
    finds_it: bool,
) -> None:
    view, other = components.views.get(walls), open_components(components.settings)
    real = Folders.open

    def opened(self: Folders, number: int, **named: Any) -> Any:
        monkeypatch.setattr(Folders, "open", real)
        view.compact()
        if not finds_it:
            raise FileNotFoundError("access.lock")
        return real(self, number, **named)

    monkeypatch.setattr(Folders, "open", opened)
    late = other.views.get(walls)
    assert (late.compactions, late.index.watermark) == (1, late.latest_sequence())
    beside = components.views.folder(walls).parent.iterdir()
    assert [path.name for path in beside if path.is_dir()] == [f"{walls.build_id}.1"]
