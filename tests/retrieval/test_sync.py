"""A collection kept in step with a folder: what changes, what is removed, what must not be."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from infra.contracts import Vectors
from infra.errors import Conflict, FetchFailed, InvalidRequest, SourceFailed
from infra.settings import Settings
from infra.settings import Sources as Limits
from retrieval.collections import Collection
from retrieval.embedders.hashing import HashingEmbedder
from retrieval.ingest import Summary
from retrieval.sources import Context, Fetched, Item, ItemGone, NotModified, Unwalkable
from retrieval.sources.folder import SETTLED_SECONDS, Folder, build
from retrieval.sync import MAX_FAILURES, Options, Plan
from retrieval.synced import Synced
from service.wiring import Components

KEEP = Options(allow_deletes=True)


class CountingEmbedder(HashingEmbedder):
    def __init__(self) -> None:
        super().__init__(256, 256)
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        if kind == "document":
            self.texts += texts
        return super().embed(texts, kind=kind)


class Shelf:
    """A source in memory that can be told to fail."""

    identity = "shelf:test"

    def __init__(self, **books: str) -> None:
        self.books = books
        self.fetched: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.breaks_listing = False
        self.versions = True

    def list(self) -> Iterator[Item | Unwalkable]:
        for name, text in self.books.items():
            version = str(hash(text)) if self.versions else None
            yield Item(f"shelf:{name}", f"{name}.txt", version)
        if self.breaks_listing:
            raise SourceFailed("The shelf fell over")

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        name = item.uri.removeprefix("shelf:")
        if name in self.fails:
            raise self.fails[name]
        version = str(hash(self.books[name]))
        if not self.versions and known == version:
            return NotModified()
        self.fetched.append(name)
        path = scratch / "bytes"
        path.write_text(self.books[name])
        return Fetched(path, version)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, unless the test asks for the other kind too."""
    if getattr(request, "param", "sqlite") == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def counted(components: Components) -> CountingEmbedder:
    components.__dict__["embedder"] = embedder = CountingEmbedder()
    return embedder


@pytest.fixture
def collection(components: Components, counted: CountingEmbedder) -> Collection:
    return components.collections.create("stones", components.recipe())


@pytest.fixture
def sync(components: Components, collection: Collection) -> Callable[..., Summary]:
    def run(origin: object, options: Options = Options()) -> Summary:  # noqa: B008
        synced = Synced(components.database, collection, origin.identity)  # type: ignore[attr-defined]
        plan = components.syncer.plan(synced.known(), origin, metadata=options.metadata)  # type: ignore[arg-type]
        summary = Summary(unchanged=plan.unchanged)
        for event in components.syncer.run(collection, origin, synced, plan, options=options):  # type: ignore[arg-type]
            summary.add(event)
        return summary

    return run


@pytest.fixture
def held(components: Components, collection: Collection) -> Callable[[], dict[str, str]]:
    """What the collection holds, text by URI."""

    def read() -> dict[str, str]:
        listed = components.documents.list(collection, limit=100).items
        return {
            each.source: components.documents.read_text(each.file_id, each.version, 0, 10_000) or ""
            for each in listed
        }

    return read


def open_folder(path: Path, **options: str) -> Folder:
    return build(str(path), Context(Limits(), options))


def settle() -> None:
    """Wait until a change can be told from the next by its time."""
    time.sleep(SETTLED_SECONDS + 0.05)


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_only_what_changed_is_fetched_and_what_is_gone_is_removed(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], counted: CountingEmbedder
) -> None:
    shelf = Shelf(tower="Kentish ragstone.", bread="Knead the dough.", gone="Soon away.")
    assert sync(shelf).added == 3
    shelf.fetched.clear()
    counted.texts.clear()
    again = sync(shelf)
    assert (again.unchanged, shelf.fetched, counted.texts) == (3, [], [])
    shelf.books |= {"bread": "Knead it twice."}
    del shelf.books["gone"]
    summary = sync(shelf)
    assert (summary.updated, summary.removed, summary.unchanged) == (1, 1, 1)
    assert shelf.fetched == ["bread"]
    assert held() == {"shelf:tower": "Kentish ragstone.", "shelf:bread": "Knead it twice."}


def test_source_that_only_tells_by_fetching_is_asked_with_what_is_known(
    sync: Callable[..., Summary],
) -> None:
    shelf = Shelf(tower="Kentish ragstone.", bread="Knead the dough.")
    shelf.versions = False
    sync(shelf)
    shelf.fetched.clear()
    assert (sync(shelf).unchanged, shelf.fetched) == (2, [])


def test_listing_that_breaks_off_changes_nothing(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    shelf = Shelf(tower="Kentish ragstone.", bread="Knead the dough.")
    sync(shelf)
    before = held()
    shelf.books = {"tower": "Other words."}
    shelf.breaks_listing = True
    with pytest.raises(SourceFailed, match="fell over"):
        sync(shelf, KEEP)
    assert held() == before


def test_source_that_dies_while_it_is_fetched_keeps_what_came_and_removes_nothing(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    shelf = Shelf(old="To be removed.", kept="Stays.")
    sync(shelf)
    shelf.books = {"kept": "Stays.", "first": "Came in time.", "second": "Too late."}
    shelf.fails["second"] = SourceFailed("The shelf burns")
    with pytest.raises(SourceFailed, match="burns"):
        sync(shelf, KEEP)
    assert set(held()) == {"shelf:old", "shelf:kept", "shelf:first"}
    shelf.fails.clear()
    sync(shelf, KEEP)
    assert set(held()) == {"shelf:kept", "shelf:first", "shelf:second"}


def test_items_that_cannot_be_reached_one_after_the_other_end_the_sync(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    shelf = Shelf(old="To be removed.")
    sync(shelf)
    shelf.books = {f"n{number}": "Text." for number in range(MAX_FAILURES + 1)}
    shelf.fails = {name: FetchFailed("no answer") for name in shelf.books}
    with pytest.raises(SourceFailed, match="in a row"):
        sync(shelf, KEEP)
    assert set(held()) == {"shelf:old"}


def test_one_item_that_fails_is_reported_and_the_rest_goes_on(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    shelf = Shelf(good="Text.", bad="Text too.")
    shelf.fails["bad"] = FetchFailed("answered 500", status=500)
    summary = sync(shelf)
    assert [(each.uri, each.code) for each in summary.skipped] == [("shelf:bad", "http_500")]
    assert set(held()) == {"shelf:good"}
    shelf.fails.clear()
    assert sync(shelf).added == 1


def test_item_that_the_source_declares_gone_is_removed(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    shelf = Shelf(good="Text.", bad="Text too.", third="More.")
    shelf.versions = False
    sync(shelf)
    shelf.fails["bad"] = ItemGone("410")
    assert sync(shelf).removed == 1
    assert set(held()) == {"shelf:good", "shelf:third"}


def test_more_deletions_than_allowed_are_refused_before_anything_is_done(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    shelf = Shelf(**{f"n{number}": f"Text {number}." for number in range(10)})
    sync(shelf)
    shelf.books = {f"n{number}": "Changed." for number in range(4)}
    with pytest.raises(Conflict, match="6 of 10 documents.*--allow-deletes"):
        sync(shelf)
    assert held()["shelf:n0"] == "Text 0."
    shelf.books = {}
    with pytest.raises(Conflict):
        sync(shelf)
    assert len(held()) == 10
    assert sync(shelf, KEEP).removed == 10
    assert held() == {}


def test_document_removed_by_other_hands_comes_back(
    sync: Callable[..., Summary],
    held: Callable[[], dict[str, str]],
    components: Components,
    collection: Collection,
) -> None:
    shelf = Shelf(tower="Kentish ragstone.")
    sync(shelf)
    [document] = components.documents.list(collection).items
    components.documents.delete(collection, document.file_id)
    assert sync(shelf).added == 1
    assert set(held()) == {"shelf:tower"}


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_document_that_another_source_brings_in_too_stays(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]]
) -> None:
    mine, other = Shelf(a="Text.", b="More."), Shelf(a="Text.", b="More.")
    other.identity = "shelf:other"  # type: ignore[misc]
    sync(mine)
    sync(other)
    del mine.books["a"]
    assert sync(mine, KEEP).removed == 0
    assert set(held()) == {"shelf:a", "shelf:b"}
    del other.books["a"]
    assert sync(other, KEEP).removed == 1
    assert set(held()) == {"shelf:b"}


def test_documents_from_elsewhere_are_never_touched(
    sync: Callable[..., Summary],
    held: Callable[[], dict[str, str]],
    components: Components,
    collection: Collection,
    tmp_path: Path,
) -> None:
    from retrieval.sources.folder import walk

    (tmp_path / "mine.txt").write_text("Not yours.")
    list(components.ingester.ingest(collection, walk([tmp_path / "mine.txt"])))
    sync(Shelf(a="Text."))
    sync(Shelf(), KEEP)
    assert set(held()) == {(tmp_path / "mine.txt").as_uri()}


def test_metadata_given_anew_reach_documents_that_did_not_change(
    sync: Callable[..., Summary],
    components: Components,
    collection: Collection,
    counted: CountingEmbedder,
) -> None:
    shelf = Shelf(a="Text.")
    sync(shelf)
    counted.texts.clear()
    sync(shelf, Options({"team": "kitchen"}))
    [document] = components.documents.list(collection).items
    assert (document.metadata["team"], counted.texts) == ("kitchen", [])
    shelf.fetched.clear()
    sync(shelf, Options({"team": "kitchen"}))
    assert shelf.fetched == []


def test_plan_says_what_would_change_and_changes_nothing(
    sync: Callable[..., Summary],
    held: Callable[[], dict[str, str]],
    components: Components,
    collection: Collection,
) -> None:
    shelf = Shelf(same="Same.", other="Before.", old="Old.")
    sync(shelf)
    before = held()
    shelf.books = {"same": "Same.", "other": "After.", "new": "New."}
    synced = Synced(components.database, collection, shelf.identity)
    plan: Plan = components.syncer.plan(synced.known(), shelf)
    assert [item.uri for item in plan.new] == ["shelf:new"]
    assert [item.uri for item in plan.changed] == ["shelf:other"]
    assert (plan.gone, plan.unchanged, plan.held) == (("shelf:old",), 1, 3)
    assert held() == before


def test_folder_is_followed_through_edits_renames_and_removals(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt", "c.txt"):
        (root / name).write_text(f"This is {name}.")
    settle()
    assert sync(open_folder(root)).added == 3
    (root / "a.txt").write_text("That is a.txt.")
    (root / "c.txt").rename(root / "sub" / "d.txt")
    summary = sync(open_folder(root))
    assert (summary.added, summary.updated, summary.removed, summary.unchanged) == (1, 1, 1, 1)
    assert {Path(uri).name: text for uri, text in held().items()} == {
        "a.txt": "That is a.txt.",
        "b.txt": "This is sub/b.txt.",
        "d.txt": "This is c.txt.",
    }


def test_file_put_in_place_with_the_same_size_and_date_is_seen(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.txt").write_text("One")
    dates = (root / "a.txt").stat()
    settle()
    sync(open_folder(root))
    (root / "a.txt").write_text("Two")
    os.utime(root / "a.txt", ns=(dates.st_atime_ns, dates.st_mtime_ns))
    sync(open_folder(root))
    assert list(held().values()) == ["Two"]


def test_links_out_of_the_folder_and_what_is_no_file_are_reported_and_not_read(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("The password is swordfish.")
    (root / "a.txt").write_text("Text.")
    (root / "inside.txt").symlink_to(root / "a.txt")
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "up.txt").symlink_to("../secret.txt")
    (root / "nothing.txt").symlink_to(root / "absent")
    (root / "circle.txt").symlink_to(root / "circle.txt")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.txt")
    summary = sync(open_folder(root))
    assert {Path(uri).name for uri in held()} == {"a.txt", "inside.txt"}
    codes = {Path(each.uri).name: each.code for each in summary.skipped}
    assert codes == {
        "out.txt": "outside",
        "up.txt": "outside",
        "nothing.txt": "unreadable",
        "circle.txt": "unreadable",
        "pipe.txt": "unreadable",
    }


def test_file_that_becomes_a_link_out_between_listing_and_fetching_is_not_read(
    tmp_path: Path,
) -> None:
    from retrieval.sources import ItemVanished

    root = tmp_path / "docs"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("Swordfish.")
    (root / "a.txt").write_text("Text.")
    folder = open_folder(root)
    [item] = folder.list()
    assert isinstance(item, Item)
    (root / "a.txt").unlink()
    (root / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ItemVanished, match="out of the folder"):
        folder.fetch(item, tmp_path, known=None)


def test_name_that_is_not_text_is_synced(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    name = os.fsencode(root) + b"/caf\xe9.txt"
    with open(name, "w") as file:
        file.write("Coffee.")
    assert sync(open_folder(root)).added == 1
    assert [uri.rsplit("/", 1)[1] for uri in held()] == ["caf%E9.txt"]
    os.unlink(name)
    assert sync(open_folder(root)).removed == 1


def test_folder_that_vanishes_or_is_replaced_removes_nothing(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    for number in range(3):
        (root / f"{number}.txt").write_text(f"Text {number}.")
    folder = open_folder(root)
    sync(folder)
    shutil.rmtree(root)
    with pytest.raises(SourceFailed, match="cannot be listed"):
        sync(folder, KEEP)
    with pytest.raises(InvalidRequest, match="No folder"):
        open_folder(root)
    root.mkdir()
    listing = open_folder(root).list()
    (root / "1.txt").write_text("Text.")
    next(listing)
    root.rename(tmp_path / "away")
    root.mkdir()
    with pytest.raises(SourceFailed, match="replaced"):
        list(listing)
    with pytest.raises(Conflict):  # as after an unmount: there, and empty
        sync(open_folder(root))
    assert len(held()) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_listed_hides_what_it_holds(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.txt").write_text("Text.")
    (root / "b.txt").write_text("Text.")
    (root / "locked.txt").write_text("Text.")
    sync(open_folder(root))
    (root / "sub").chmod(0)
    (root / "locked.txt").chmod(0)
    (root / "b.txt").unlink()
    try:
        summary = sync(open_folder(root), KEEP)
    finally:
        (root / "sub").chmod(0o700)
    assert summary.removed == 0
    assert {Path(each.uri).name for each in summary.skipped} == {"sub", "locked.txt"}
    assert len(held()) == 3


def test_globs_choose_files(
    sync: Callable[..., Summary], held: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    root = tmp_path / "docs"
    (root / "drafts").mkdir(parents=True)
    for name in ("a.md", "b.txt", "drafts/c.md"):
        (root / name).write_text("Text.")
    sync(open_folder(root, include="*.md", exclude="drafts/*"))
    assert [Path(uri).name for uri in held()] == ["a.md"]
    sync(open_folder(root, include="*.txt"), KEEP)
    assert [Path(uri).name for uri in held()] == ["b.txt"]
    with pytest.raises(InvalidRequest, match="includes"):
        open_folder(root, includes="*.md")


EDITS = strategies.lists(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from("abcdef"),
            strategies.sampled_from([None, "One.", "Two.", "Three words here."]),
        ),
        max_size=4,
    ),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=EDITS, by_fetching=strategies.booleans())
def test_after_any_edits_the_collection_equals_the_source(
    edits: list[list[tuple[str, str | None]]],
    by_fetching: bool,
    sync: Callable[..., Summary],
    held: Callable[[], dict[str, str]],
    counted: CountingEmbedder,
) -> None:
    shelf = Shelf()
    shelf.versions = not by_fetching
    for round_ in edits:
        for name, text in round_:
            if text is None:
                shelf.books.pop(name, None)
            else:
                shelf.books[name] = text
        sync(shelf, KEEP)
        assert held() == {f"shelf:{name}": text for name, text in shelf.books.items()}
    counted.texts.clear()
    shelf.fetched.clear()
    sync(shelf, KEEP)
    assert (counted.texts, shelf.fetched) == ([], [])


def test_sync_that_is_stopped_anywhere_goes_on_where_it_was(
    components: Components,
    collection: Collection,
    sync: Callable[..., Summary],
    held: Callable[[], dict[str, str]],
    settings: Settings,
) -> None:
    shelf = Shelf(**{f"n{number}": f"Text {number}." for number in range(12)})
    sync(Shelf(old="Old."))
    for stop_after in (1, 4, 9):
        synced = Synced(components.database, collection, shelf.identity)
        plan = components.syncer.plan(synced.known(), shelf)
        events = components.syncer.run(collection, shelf, synced, plan, options=KEEP)
        for _ in range(stop_after):
            next(events, None)
        events.close()  # type: ignore[attr-defined]
    sync(shelf, KEEP)
    assert set(held()) == {f"shelf:{name}" for name in shelf.books}
    assert list((settings.data_folder / "syncing").iterdir()) == []
