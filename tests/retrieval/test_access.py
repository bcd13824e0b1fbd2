"""With any tenants, lists and filters, a search finds what is the caller's, and all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from infra.contracts import PUBLIC, Access, Readers
from infra.database.schema import document
from infra.errors import Conflict, Forbidden, InvalidFilter, InvalidRequest, NotFound
from infra.settings import Settings, load_settings
from retrieval.access import confine, may_read, readable, settle
from retrieval.collections import Collection
from retrieval.filters import Filter, matches, parse
from retrieval.indexes import Change
from retrieval.indexes.exact import ExactIndex
from retrieval.indexes.milvus import MilvusIndex
from retrieval.search import Mode, SearchRequest
from retrieval.sources import Source
from service.wiring import Components

TENANTS = ("acme", "bolt", "café")
PRINCIPALS = ("key:ada", "group:board", "group:Board")
WORDS = ("gate", "wall", "moat")

readers = st.one_of(
    st.just(Readers()),
    st.just(Readers(None, (PUBLIC,))),
    st.builds(
        Readers,
        st.sampled_from(TENANTS),
        st.lists(st.sampled_from((*PRINCIPALS, PUBLIC)), unique=True, max_size=2).map(tuple),
    ),
)
accesses = st.one_of(
    st.none(),
    st.builds(
        Access, st.sampled_from((*TENANTS, "nobody")), st.frozensets(st.sampled_from(PRINCIPALS))
    ),
)
metadata = st.fixed_dictionaries(
    {"year": st.integers(1, 3)},
    optional={"topic": st.sampled_from(("a", "b")), "open": st.booleans()},
)


def comparison(kind: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value}


comparisons = st.one_of(
    st.builds(
        comparison,
        st.sampled_from(("eq", "ne", "gt", "gte", "lt", "lte")),
        st.just("year"),
        st.integers(0, 4),
    ),
    st.builds(
        comparison,
        st.sampled_from(("in", "nin")),
        st.just("year"),
        st.lists(st.integers(0, 4), max_size=3),
    ),
    st.builds(comparison, st.sampled_from(("eq", "ne")), st.just("topic"), st.just("a")),
    st.builds(comparison, st.sampled_from(("eq", "ne")), st.just("open"), st.booleans()),
)
filters = st.none() | st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(
            lambda kind, parts: {"type": kind, "filters": parts},
            st.sampled_from(("and", "or")),
            st.lists(inner, min_size=1, max_size=3),
        ),
        inner.map(lambda part: {"type": "not", "filter": part}),
    ),
    max_leaves=4,
)


@dataclass
class Kept:
    """A document as the test knows it."""

    readers: Readers
    metadata: Mapping[str, Any]


@dataclass
class World:
    """A collection, and what should be in it."""

    components: Components
    collection: Collection
    folder: Path
    kept: dict[str, Kept] = field(default_factory=dict)

    def write(self, name: str, whose: Readers, values: Mapping[str, Any]) -> None:
        path = self.folder / name
        if name not in self.kept:
            path.write_text(f"A gate, a wall and a moat of {name}.")
        source = Source(f"test:{name}", path, name, values, whose)
        if name in self.kept and self.kept[name].readers.tenant != whose.tenant:
            stored = self.components.documents.of_source(self.collection, source.uri)
            assert stored is not None
            if whose.tenant is None:
                self.remove(name)
                path.write_text(f"A gate, a wall and a moat of {name}.")
            else:
                self.components.documents.update(self.collection, stored.file_id, readers=whose)
        merged = {**(self.kept[name].metadata if name in self.kept else {}), **values}
        list(self.components.ingester.ingest(self.collection, [source]))
        self.kept[name] = Kept(whose, merged)

    def remove(self, name: str) -> None:
        stored = self.components.documents.of_source(self.collection, f"test:{name}")
        assert stored is not None
        self.components.documents.delete(self.collection, stored.file_id)
        del self.kept[name]

    def expected(self, access: Access | None, chosen: Filter | None) -> set[str]:
        return {
            name
            for name, each in self.kept.items()
            if may_read(access, each.readers) and (chosen is None or matches(chosen, each.metadata))
        }

    def found(self, access: Access | None, chosen: Filter | None, mode: Mode) -> set[str] | None:
        request = SearchRequest(
            "gate wall moat", limit=50, filter=chosen, mode=mode, access=access, smoothing=0.0
        )
        self.components.views.get(self.collection).checkpoint(at_least=1)  # builds structures
        try:
            result = self.components.retriever.search(self.collection, request)
        except InvalidFilter:
            return None
        return {passage.source.removeprefix("test:") for passage in result.passages}


def has_all_fields(world: World, access: Access | None, raw: Any) -> bool:
    """Whether the caller's documents have what the filter names."""
    seen = [each.metadata for each in world.kept.values() if may_read(access, each.readers)]
    text = repr(raw)
    return all(
        any(key in values for values in seen)
        for key in ("year", "topic", "open")
        if f"'{key}'" in text
    )


@pytest.fixture(params=["exact", "local", "hnsw", "ivf", "milvus"])
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    open_components: Callable[[Settings], Components],
) -> World:
    if request.param == "milvus":
        pytest.importorskip("milvus_lite")
    is_forced = request.param in ("hnsw", "ivf")
    opened = open_components(
        load_settings(
            data_folder=tmp_path / "data",
            retrieval={
                "embedder": "hashing",
                "chunk_tokens": 60,
                "chunk_overlap_tokens": 10,
                "index": "local" if is_forced else request.param,
                "index_options": {"type": request.param, "exact_below": 1} if is_forced else {},
            },
        )
    )
    folder = tmp_path / "documents"
    folder.mkdir()
    return World(opened, opened.collections.create("shared", opened.recipe()), folder)


@pytest.mark.thorough
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    writes=st.lists(st.tuples(st.integers(0, 9), readers, metadata), min_size=1, max_size=6),
    removed=st.none() | st.integers(0, 9),
    asked=st.lists(
        st.tuples(accesses, filters, st.sampled_from(("hybrid", "dense", "lexical"))),
        min_size=1,
        max_size=6,
    ),
)
def test_search_finds_exactly_what_the_caller_may_read(
    world: World,
    writes: list[tuple[int, Readers, dict[str, Any]]],
    removed: int | None,
    asked: list[tuple[Access | None, Any, Mode]],
) -> None:
    for number, whose, values in writes:
        world.write(f"d{number}", whose, values)
    if removed is not None and f"d{removed}" in world.kept:
        world.remove(f"d{removed}")
    for access, raw, mode in asked:
        chosen = parse(raw) if raw is not None else None
        found = world.found(access, chosen, mode)
        mine = world.expected(access, None)
        if chosen is not None and mine and not has_all_fields(world, access, raw):
            assert found is None, "a field that none of the caller's documents has was no error"
        else:
            assert found == world.expected(access, chosen)
        with world.components.database.read() as connection:
            rows = connection.execute(select(document.c.source).where(readable(access))).scalars()
            assert {source.removeprefix("test:") for source in rows} == mine


def test_one_percent_filter_finds_what_the_exact_index_finds(
    world: World,
) -> None:
    generator = np.random.default_rng(4)
    index = world.components.views.get(world.collection).index
    exact = ExactIndex(dimension=world.collection.recipe.dimension)
    rows = 2_000
    vectors = generator.standard_normal((rows, world.collection.recipe.dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = [" ".join(generator.choice(WORDS, 5)) for _ in range(rows)]
    changes = [
        Change(n + 1, n + 1, n // 2 + 1, words[n], "", vectors[n].astype(np.float16))
        for n in range(rows)
    ]
    for each in (index, exact):
        each.apply(changes)
    index.checkpoint()
    allowed = np.sort(generator.choice(np.arange(1, 1001), 10, replace=False)).astype(np.int64)
    for query in vectors[:20].astype(np.float32):
        mine = index.dense(query, 10, documents=allowed)
        assert (
            mine.chunk_ids.tolist() == exact.dense(query, 10, documents=allowed).chunk_ids.tolist()
        )
    mine = index.lexical("gate wall", 10, documents=allowed)
    assert len(mine.chunk_ids) == 10
    assert np.isin((mine.chunk_ids - 1) // 2 + 1, allowed).all()
    if isinstance(index, MilvusIndex):  # Milvus Lite scores words by what the filter leaves
        return
    every = index.lexical("gate wall", rows)
    inside = np.isin((every.chunk_ids - 1) // 2 + 1, allowed)
    assert mine.chunk_ids.tolist() == every.chunk_ids[inside][:10].tolist()


def test_filter_on_a_field_of_another_tenant_is_on_an_unknown_field(world: World) -> None:
    world.write("d1", Readers("acme"), {"year": 1, "salary": 10})
    world.write("d2", Readers("bolt"), {"year": 2})
    salary = parse({"type": "gt", "key": "salary", "value": 5})
    search = world.components.retriever.search
    request = SearchRequest("gate", filter=salary, access=Access("acme"))
    assert len(search(world.collection, request).passages) == 1
    with pytest.raises(InvalidFilter, match=r"No document has a field 'salary'; there are") as told:
        search(world.collection, SearchRequest("gate", filter=salary, access=Access("bolt")))
    assert "year" in told.value.message
    wrong = parse({"type": "eq", "key": "year", "value": "2"})
    with pytest.raises(InvalidFilter, match="'year' holds a number, never a text"):
        search(world.collection, SearchRequest("gate", filter=wrong))
    nobody = SearchRequest("gate", filter=salary, access=Access("nobody"))
    assert search(world.collection, nobody).passages == ()


def test_field_is_unknown_again_when_its_last_document_is_gone(world: World) -> None:
    world.write("d1", Readers(), {"year": 1, "salary": 10})
    world.write("d2", Readers(), {"year": 2})
    request = SearchRequest("gate", filter=parse({"type": "gt", "key": "salary", "value": 5}))
    assert len(world.components.retriever.search(world.collection, request).passages) == 1
    world.remove("d1")
    with pytest.raises(InvalidFilter, match="salary"):
        world.components.retriever.search(world.collection, request)


def test_filters_for_one_and_for_true_are_two(world: World) -> None:
    world.write("d1", Readers(), {"open": True, "year": 1})
    search = world.components.retriever.search
    yes = SearchRequest("gate", filter=parse({"type": "eq", "key": "open", "value": True}))
    assert len(search(world.collection, yes).passages) == 1
    one = SearchRequest("gate", filter=parse({"type": "eq", "key": "open", "value": 1}))
    with pytest.raises(InvalidFilter, match="holds a boolean, never a number"):
        search(world.collection, one)


def test_source_of_another_tenant_is_skipped(components: Components, tmp_path: Path) -> None:
    into = components.collections.create("shared", components.recipe())
    path = tmp_path / "a.txt"
    path.write_text("The moat is deep.")

    def ingest(whose: Readers | None) -> list[Any]:
        return list(components.ingester.ingest(into, [Source("test:a", path, "a.txt", {}, whose)]))

    ingest(Readers("acme", ("group:board",)))
    [skipped] = ingest(Readers("bolt"))
    assert (skipped.code, "'acme'" in skipped.message) == ("other_tenant", True)
    stored = components.documents.of_source(into, "test:a")
    assert stored is not None
    assert stored.readers == Readers("acme", ("group:board",))
    path.write_text("The moat is deeper.")
    ingest(None)
    stored = components.documents.of_source(into, "test:a")
    assert stored is not None
    assert (stored.version, stored.tenant, stored.allow) == (
        2,
        "acme",
        ("group:board",),
    )


@pytest.mark.parametrize(
    ("whose", "kept", "code"),
    [
        (Readers("acme", ("group:board",)), ("group:board",), None),
        (Readers("bolt"), (), "other_tenant"),
    ],
)
def test_list_holds_though_another_writer_brought_the_same_bytes_first(
    components: Components,
    tmp_path: Path,
    whose: Readers,
    kept: tuple[str, ...],
    code: str | None,
) -> None:
    into = components.collections.create("shared", components.recipe())
    path = tmp_path / "a.txt"
    path.write_text("The moat is deep.")

    def slow() -> Iterator[Source]:
        yield Source("test:a", path, "a.txt", {}, whose)
        # It is read by now, and written when there are no more.
        faster = Source("test:a", path, "a.txt", {}, Readers("acme"))
        list(components.ingester.ingest(into, [faster]))

    skipped = [
        event for event in components.ingester.ingest(into, slow()) if hasattr(event, "code")
    ]
    assert [event.code for event in skipped] == ([code] if code else [])
    stored = components.documents.of_source(into, "test:a")
    assert stored is not None
    assert stored.readers == Readers("acme", kept)


def test_changed_document_of_a_tenants_collection_keeps_its_list(
    components: Components, tmp_path: Path
) -> None:
    own = components.collections.create("own", components.recipe(), tenant="acme")
    path = tmp_path / "a.txt"
    for text in ("The moat is deep.", "The moat is deeper."):
        path.write_text(text)
        source = Source("test:a", path, "a.txt", {}, Readers(None, ("group:board",)))
        list(components.ingester.ingest(own, [source]))
    stored = components.documents.of_source(own, "test:a")
    assert stored is not None
    assert (stored.version, stored.readers) == (2, Readers("acme", ("group:board",)))


def test_collection_of_a_tenant_takes_its_documents_only(
    components: Components, tmp_path: Path
) -> None:
    own = components.collections.create("own", components.recipe(), tenant="acme")
    assert settle(own, None) == Readers("acme")
    with pytest.raises(Conflict, match="another tenant"):
        settle(own, Readers("bolt"))
    sees = components.collections.seen_by(Access("bolt"), lambda _: True)
    with pytest.raises(NotFound) as told:
        sees.get("own")
    assert "own" not in told.value.message.replace("'own'", "")
    assert sees.list().items == ()


def test_caller_cannot_write_for_others_nor_lock_itself_out() -> None:
    ada = Access("acme", frozenset({"key:ada"}))
    assert confine(ada, None) == Readers("acme")
    assert confine(ada, Readers(None, ("key:ada",))) == Readers("acme", ("key:ada",))
    with pytest.raises(Forbidden):
        confine(ada, Readers("bolt"))
    with pytest.raises(Forbidden):
        confine(ada, Readers(None, (PUBLIC,)))
    with pytest.raises(InvalidRequest, match="leaves out"):
        confine(ada, Readers(None, ("group:board",)))
