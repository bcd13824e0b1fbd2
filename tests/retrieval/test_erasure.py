"""Erasing and compacting: receipts, other stores, snapshots, full disks, locked databases."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.contracts import Access, Readers
from infra.database.compaction import compact
from infra.errors import Conflict, InvalidFilter, InvalidRequest, NotFound, StorageFailed
from infra.settings import Settings
from retrieval.collections import Collection
from retrieval.compaction import Compactor
from retrieval.erasure import Erasure
from retrieval.files import Files
from retrieval.filters import parse
from retrieval.quotes import Quotes
from retrieval.receipts import Asked, Receipts
from retrieval.search import SearchRequest
from retrieval.sources import Source
from service.wiring import Components
from service.work import erased_snapshots, erasing, snapshots

ROOT = Path(__file__).parents[2]


@pytest.fixture
def walls(components: Components, tmp_path: Path) -> Collection:
    """A collection with five documents of two tenants."""
    whole = components.collections.create("walls", components.recipe())
    sources = []
    for number in range(5):
        path = tmp_path / f"wall{number}.txt"
        path.write_text(f"Wall {number} is made of ragstone. " * 30)
        whose = Readers("acme" if number % 2 else "bolt")
        sources.append(Source(f"test:{number}", path, path.name, {"number": number}, whose))
    list(components.ingester.ingest(whole, sources))
    return whole


def ids(components: Components, within: Collection) -> list[str]:
    page = components.documents.list(within, limit=100, descending=False)
    return [each.file_id for each in page.items]


def test_receipt_says_what_went_without_a_word_of_it(
    components: Components, walls: Collection
) -> None:
    first = ids(components, walls)[0]
    stored = components.documents.get(walls, first)
    receipt = erasing.erase(components, walls, [first], by="ada")
    [gone] = receipt.documents
    assert (receipt.state, receipt.requested_by, receipt.collection) == (
        "compacted",
        "ada",
        walls.public_id,
    )
    assert (gone.id, gone.version, gone.digest) == (first, 1, stored.digest)
    assert gone.chunks == {str(walls.build_id): stored.chunks}
    assert receipt.removed["chunks"] == stored.chunks
    assert receipt.removed["files"] == 1
    assert "wall0" not in repr(receipt)
    assert components.erasure.receipts.get(receipt.id) == receipt
    assert components.erasure.receipts.list(collection=walls.public_id).items == (receipt,)
    assert len(ids(components, walls)) == 4


def test_documents_are_chosen_by_filter_or_tenant(
    components: Components, walls: Collection
) -> None:
    newest = parse({"type": "gte", "key": "number", "value": 3})
    assert erasing.choose(components, walls, where=newest) == ids(components, walls)[3:]
    assert erasing.choose(components, walls, tenant="acme") == ids(components, walls)[1::2]
    both = erasing.choose(components, walls, where=newest, tenant="acme")
    assert both == [ids(components, walls)[3]]
    with pytest.raises(InvalidRequest, match="Name documents, or choose them"):
        erasing.choose(components, walls)
    with pytest.raises(NotFound):
        erasing.choose(components, walls, tenant="nobody")
    with pytest.raises(InvalidFilter, match="numbre"):
        erasing.choose(components, walls, where=parse({"type": "eq", "key": "numbre", "value": 1}))


def test_erasing_what_is_not_there_removes_nothing(
    components: Components, walls: Collection
) -> None:
    known = ids(components, walls)
    with pytest.raises(NotFound, match="file-none"):
        erasing.erase(components, walls, [known[0], "file-none"], by="ada")
    others = components.documents.seen_by(Access("acme"))
    with pytest.raises(NotFound):
        components.erasure.erase(others, walls, known[:2], asked=Asked("bob", "acme"))
    assert ids(components, walls) == known
    assert components.erasure.receipts.list().items == ()
    with pytest.raises(NotFound):
        components.erasure.receipts.get("erasure-none")


def test_other_stores_are_told_and_told_again(components: Components, walls: Collection) -> None:
    quoted: list[list[str]] = []

    def forget(document_ids: Sequence[str]) -> int:
        quoted.append(list(document_ids))
        return 3 if len(quoted) == 1 else 0

    erasure = Erasure(
        components.database,
        components.files,
        quotes=Quotes(components.database, {"answers": forget}),
    )
    chosen = ids(components, walls)[:2]
    receipt = erasure.erase(components.documents, walls, chosen, asked=Asked("ada"))
    assert receipt.removed["answers"] == 3
    Compactor(
        components.database,
        views=components.views,
        builds=components.builds,
        files=components.files,
        erasure=erasure,
    ).compact(walls)
    assert quoted == [chosen, chosen]  # an answer may have been under way meanwhile


def test_eraser_that_fails_leaves_an_erasure_to_be_finished(
    components: Components, walls: Collection
) -> None:
    failing = [True]

    def forget(document_ids: Sequence[str]) -> int:
        if failing[0]:
            raise StorageFailed("the store of answers cannot be reached")
        return len(document_ids)

    erasure = Erasure(
        components.database,
        components.files,
        quotes=Quotes(components.database, {"answers": forget}),
    )
    chosen = ids(components, walls)[:1]
    with pytest.raises(StorageFailed):
        erasure.erase(components.documents, walls, chosen, asked=Asked("ada"))
    [begun] = erasure.receipts.in_state("begun")
    assert len(ids(components, walls)) == 4
    failing[0] = False
    assert erasure.finish() == 1
    assert erasure.receipts.get(begun.id).removed["answers"] == 1


def test_searches_go_on_while_the_index_is_compacted(
    components: Components, walls: Collection
) -> None:
    stop, failures, done = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            try:
                found = components.retriever.search(walls, SearchRequest("ragstone wall 3"))
                assert found.passages[0].source == "test:3"
                done[0] += 1
            except Exception as error:  # noqa: BLE001  it is for the test to tell
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 4):
        components.compactor.compact(walls)
        assert components.views.get(walls).compactions == number
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert done[0] > 0
    beside = components.views.folder(walls).parent.iterdir()
    folders = [path.name for path in beside if path.is_dir()]
    assert folders == [f"{walls.build_id}.3"]


def test_snapshots_that_hold_a_document_are_named_and_deleted(
    components: Components, walls: Collection
) -> None:
    reference = snapshots.take(components, walls)
    first, *_, last = ids(components, walls)
    receipt = erasing.erase(components, walls, [first], by="ada")
    later = snapshots.take(components, walls)
    shown = erasing.shown(components, receipt)
    assert shown["snapshots"] == [str(reference)]
    restored = snapshots.restore(components, str(reference), "again")
    [twin] = [
        each.file_id
        for each in components.documents.list(restored, limit=9).items
        if each.source == "test:0"
    ]
    erased = erasing.erase(components, restored, [twin], by="ada")
    assert erased_snapshots.holding(components, erased.documents) == [str(reference)]
    components.artifacts.tag(str(reference), "kept")
    with pytest.raises(Conflict, match="kept"):
        erased_snapshots.delete_snapshots(components, [str(reference)])
    components.artifacts.untag(f"collection/{reference.name}", "kept")
    erased_snapshots.delete_snapshots(components, [str(reference)])
    assert erased_snapshots.holding(components, receipt.documents) == []
    gone = erasing.erase(components, walls, [last], by="ada", snapshots=True)
    assert erased_snapshots.holding(components, gone.documents) == []
    with pytest.raises(NotFound):
        components.artifacts.find(str(later))


def test_snapshot_brings_tenants_and_lists_back(components: Components, walls: Collection) -> None:
    first = ids(components, walls)[0]
    components.documents.update(walls, first, readers=Readers("bolt", ("key:ada",)))
    restored = snapshots.restore(components, str(snapshots.take(components, walls)), "again")
    before = components.documents.list(walls, limit=9).items
    after = components.documents.list(restored, limit=9).items
    assert [each.readers for each in after] == [each.readers for each in before]
    request = SearchRequest("ragstone", limit=50, access=Access("acme"))
    found = components.retriever.search(restored, request).passages
    assert {passage.source for passage in found} == {"test:1", "test:3"}


def test_locked_database_leaves_all_as_it_was(components: Components, walls: Collection) -> None:
    if not components.database.is_sqlite:
        pytest.skip("PostgreSQL has no one writer to wait for")
    erasing.erase(components, walls, ids(components, walls)[:1], by="ada", compact=False)
    components.compactor.compact(walls)
    path = components.settings.database_location.removeprefix("sqlite:///")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailed, match="locked"):
        compact(components.database, wait_seconds=0.2)
    other.execute("ROLLBACK")
    other.close()
    assert len(ids(components, walls)) == 4
    assert compact(components.database) == []


def test_full_disk_leaves_the_old_index(
    components: Components, walls: Collection, open_components: Callable[[Settings], Components]
) -> None:
    if not components.database.is_sqlite:
        pytest.skip("the limit is on files of this process")
    erasing.erase(components, walls, ids(components, walls)[:1], by="ada", compact=False)
    components.views.checkpoint(at_least=1)
    components.close()
    failed = _compact(components.settings, blocks=24)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "disk" in failed.stderr
    again = open_components(components.settings)
    found = again.retriever.search(walls, SearchRequest("ragstone wall 3")).passages
    assert found[0].source == "test:3"
    assert again.erasure.receipts.list().items[0].state == "removed"
    again.compactor.compact(walls)
    assert again.erasure.receipts.list().items[0].state == "compacted"


def _compact(settings: Settings, *, blocks: int) -> subprocess.CompletedProcess[str]:
    """Compact where no file may have more than so many kilobytes."""
    program = [sys.executable, "-c", "from service.cli import main; main()"]
    program += ["collections", "compact", "walls"]
    return subprocess.run(
        ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "bash", *program],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAGSTONE_DATA_FOLDER": str(settings.data_folder),
            "RAGSTONE_DATABASE_URL": settings.database_location,
            "RAGSTONE_RETRIEVAL__EMBEDDER": "hashing",
            "RAGSTONE_RETRIEVAL__CHUNK_TOKENS": "60",
            "RAGSTONE_RETRIEVAL__CHUNK_OVERLAP_TOKENS": "10",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_folders_of_builds_that_are_gone_are_removed(
    components: Components, walls: Collection
) -> None:
    components.views.get(walls).refresh()
    stray = components.views.folder(walls).parent / "999"
    stray.mkdir()
    (components.settings.data_folder / "indexes" / "vs_none" / "1").mkdir(parents=True)
    assert components.compactor.compact(walls).strays == 3
    assert not stray.exists()


def test_deleted_collection_leaves_a_receipt(components: Components, walls: Collection) -> None:
    known = ids(components, walls)
    components.delete_collection("walls")
    [receipt] = Receipts(components.database).list().items
    assert receipt.state == "removed"
    assert [each.id for each in receipt.documents] == known
    assert receipt.collection_name == "walls"


def test_uploaded_file_stays_when_it_is_only_detached(components: Components) -> None:
    whole = components.collections.create("walls", components.recipe())
    stored = components.files.add("a.txt", [b"The moat is deep."], purpose="assistants")
    components.documents.attach(whole, stored.id)
    components.ingester.process(whole, stored.id)

    def erase(**how: Any) -> None:
        asked = Asked("ada", **how)
        components.erasure.erase(components.documents, whole, [stored.id], asked=asked)

    erase(with_files=False)
    assert components.files.path(stored.id).read_bytes() == b"The moat is deep."
    components.documents.attach(whole, stored.id)
    erase()
    with pytest.raises(NotFound):
        components.files.get(stored.id)


def test_whichever_way_a_document_goes_other_stores_erase(
    components: Components, walls: Collection
) -> None:
    told: list[str] = []

    def forget(document_ids: Sequence[str]) -> int:
        told.extend(document_ids)
        return len(document_ids)

    quotes = Quotes(components.database, {"answers": forget})
    first, second, *rest = ids(components, walls)
    components.documents.delete(walls, first)  # as a sync or a pruning ingest does
    Files(components.database, components.blobs, quotes=quotes).sweep()
    assert told == [first]
    components.documents.delete(walls, second)
    components.collections.delete("walls")
    assert quotes.sweep() == {"answers": 4}
    assert sorted(told) == sorted([first, second, *rest])
    assert quotes.sweep() == {"answers": 0}


def test_filter_chooses_documents_as_they_are_now(
    components: Components, walls: Collection
) -> None:
    old = parse({"type": "eq", "key": "number", "value": 3})
    assert len(erasing.choose(components, walls, where=old)) == 1
    stored = components.files.add("a.txt", [b"The moat is deep."], purpose="assistants")
    components.documents.attach(walls, stored.id, metadata={"number": 3})
    assert len(erasing.choose(components, walls, where=old)) == 2
    components.documents.update(walls, stored.id, metadata={"number": 4})
    assert stored.id not in erasing.choose(components, walls, where=old)
