"""LangChain both ways: our collections behind its interfaces, its loaders and splitters in ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda

from infra.errors import InvalidConfiguration, InvalidRequest
from infra.settings import load_settings
from retrieval.adapters.langchain import CollectionRetriever, CollectionStore
from retrieval.ingest import Summary
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from retrieval.splitting import locate
from service.wiring import Components

TEXTS = [
    "The tower of Conwy castle was built by Edward the First of England.",
    "Ravens live at the Tower of London; their wings are clipped.",
    "A stone bridge crosses the river below the town wall.",
]


@pytest.fixture
def parts(
    tmp_path: Path, open_components: Callable[[Any], Components]
) -> Callable[..., Components]:
    def build(*, loading: dict[str, Any] | None = None, **retrieval: Any) -> Components:
        given = {"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10}
        return open_components(
            load_settings(
                data_folder=tmp_path / "data",
                retrieval=given | retrieval,
                loading=loading or {},
            )
        )

    return build


@pytest.fixture
def store(parts: Callable[..., Components]) -> CollectionStore:
    return _store(parts())


def _store(built: Components) -> CollectionStore:
    return CollectionStore(
        built.collections.create("castles", built.recipe()),
        database=built.database,
        files=built.files,
        ingester=built.ingester,
        retriever=built.retriever,
    )


def test_texts_that_were_added_are_found_with_their_spans(
    store: CollectionStore, parts: Callable[..., Components]
) -> None:
    ids = store.add_texts(TEXTS, [{"n": 1}, {"n": 2}, {"n": 3, "empty": None}])
    found, score = store.similarity_search_with_score("ravens in London", 1)[0]
    assert found.id == ids[1]
    assert found.page_content == TEXTS[1]
    assert found.metadata["n"] == 2
    assert 0 < score <= 1
    stored = parts().documents.read_text(
        found.metadata["document_id"],
        found.metadata["document_version"],
        found.metadata["start_char"],
        found.metadata["end_char"],
    )
    assert stored == found.page_content


def test_documents_keep_their_ids_and_replace_what_had_them(store: CollectionStore) -> None:
    documents = [Document(id=f"a/{n}", page_content=text) for n, text in enumerate(TEXTS)]
    assert store.add_documents(documents) == ["a/0", "a/1", "a/2"]
    store.add_documents([Document(id="a/1", page_content="A moat with ducks.")])
    assert [one.page_content for one in store.get_by_ids(["a/1", "b"])] == ["A moat with ducks."]
    assert store.similarity_search("ducks", 1)[0].id == "a/1"
    assert all("Ravens" not in one.page_content for one in store.similarity_search("ravens", 9))


def test_deleted_text_is_not_returned(store: CollectionStore) -> None:
    ids = store.add_texts(TEXTS)
    assert store.delete([ids[1], "unknown"])
    assert ids[1] not in {one.id for one in store.similarity_search("ravens", 9)}
    by_public_id = store.similarity_search("bridge", 1)[0].metadata["document_id"]
    assert store.delete([by_public_id])
    assert {one.id for one in store.similarity_search("bridge", 9)} == {ids[0]}
    with pytest.raises(InvalidRequest, match="which ids"):
        store.delete()


def test_filters_hold(store: CollectionStore) -> None:
    store.add_texts(TEXTS, [{"n": 1, "by": "x"}, {"n": 2, "by": "x"}, {"n": 3, "by": "y"}])
    for raw, numbers in (
        ({"by": "x"}, {1, 2}),
        ({"by": "x", "n": 2}, {2}),
        ({"type": "gte", "key": "n", "value": 2}, {2, 3}),
    ):
        found = store.similarity_search("tower", 9, filter=raw)
        assert {one.metadata["n"] for one in found} == numbers


def test_store_becomes_a_retriever_of_a_chain(store: CollectionStore) -> None:
    store.add_texts([*TEXTS, TEXTS[1] + " Again."])
    for kind in ("similarity", "mmr"):
        chain = store.as_retriever(search_type=kind, search_kwargs={"k": 2}) | RunnableLambda(len)
        assert chain.invoke("ravens") == 2
    several = store.max_marginal_relevance_search("ravens", 2, lambda_mult=0.0)
    assert {one.page_content[:6] for one in several} != {"Ravens"}
    assert store.similarity_search_with_relevance_scores("ravens", 1)[0][1] > 0


def test_retriever_searches_as_the_request_says(
    parts: Callable[..., Components], store: CollectionStore
) -> None:
    store.add_texts(TEXTS)
    built = parts()
    retriever = CollectionRetriever(
        retriever=built.retriever,
        collection=built.collections.get("castles"),
        request=SearchRequest(text="", limit=2, mode="lexical"),
    )
    assert [one.page_content for one in retriever.invoke("bridge river")] == [TEXTS[2]]


@pytest.mark.parametrize(
    ("texts", "metadatas", "ids", "message"),
    [
        (["a", "b"], [{}], None, "2 texts, 2 ids and 1 metadatas"),
        (["a"], None, ["x", "y"], "1 texts, 2 ids"),
        (["fine", ""], None, ["x", "y/z"], "1 of 2 .*'y/z'"),
        (["a"], [{"nested": {"a": 1}}], None, "'nested' is dict"),
    ],
)
def test_what_cannot_be_added_is_refused(
    store: CollectionStore,
    texts: list[str],
    metadatas: list[dict[str, Any]] | None,
    ids: list[str] | None,
    message: str,
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        store.add_texts(texts, metadatas, ids=ids)


def test_foreign_embedding_and_unknown_options_are_refused(store: CollectionStore) -> None:
    with pytest.raises(InvalidRequest, match="DeterministicFakeEmbedding"):
        CollectionStore.from_texts(TEXTS, DeterministicFakeEmbedding(size=4))
    with pytest.raises(InvalidRequest, match="'fetch'"):
        store.similarity_search("ravens", 2, fetch=3)


FOREIGN = """
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

class Pages(BaseLoader):
    def __init__(self, path):
        self.path = path

    def lazy_load(self):
        for number, page in enumerate(open(self.path, encoding="utf-8").read().split("\\f")):
            yield Document(page, metadata={"page": number, "kind": "play", "source": self.path})

class Words:
    def __init__(self, words=5, prefix=""):
        self.words, self.prefix = words, prefix

    def split_text(self, text):
        every = text.split()
        step = self.words - 1
        return [
            self.prefix + " ".join(every[at : at + self.words])
            for at in range(0, len(every), step)
        ]

def broken(path):
    raise RuntimeError("no such page")

def numbers(text):
    return [1, 2]
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "code").mkdir()
    name = f"foreign_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "code" / f"{name}.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path / "code")
    return name


def _ingested(built: Components, folder: Path) -> Summary:
    into = built.collections.create("plays", built.recipe())
    summary = Summary()
    for event in built.ingester.ingest(into, walk([folder])):
        summary.add(event)
    return summary


@pytest.fixture
def plays(tmp_path: Path) -> Path:
    folder = tmp_path / "plays"
    folder.mkdir()
    (folder / "lear.pages").write_text(
        "Nothing will come   of nothing.\nSpeak again.\f  Blow, winds, and crack your cheeks!"
    )
    return folder


def test_loader_of_langchain_reads_files_of_its_ending(
    parts: Callable[..., Components], foreign: str, plays: Path
) -> None:
    built = parts(loading={"loaders": {".pages": f"{foreign}.Pages"}})
    assert _ingested(built, plays).added == 1
    passages = built.search(
        built.collections.get("plays"), SearchRequest(text="winds and cheeks", limit=1)
    ).passages
    [passage] = passages
    assert passage.metadata["kind"] == "play"
    assert passage.source == (plays / "lear.pages").as_uri()
    assert "Blow, winds" in passage.text


def test_loader_that_fails_costs_one_document(
    parts: Callable[..., Components], foreign: str, plays: Path
) -> None:
    (plays / "b.txt").write_text("A text that Ragstone reads.")
    built = parts(loading={"loaders": {".pages": f"{foreign}.broken"}})
    summary = _ingested(built, plays)
    assert summary.added == 1
    [skipped] = summary.skipped
    assert "RuntimeError: no such page" in skipped.message


def test_pieces_of_a_foreign_splitter_are_exact_spans(
    parts: Callable[..., Components], foreign: str, plays: Path
) -> None:
    (plays / "lear.pages").rename(plays / "lear.txt")
    built = parts(splitter=f"{foreign}.Words", splitter_options={"words": 4})
    assert _ingested(built, plays).added == 1
    into = built.collections.get("plays")
    passages = built.search(into, SearchRequest(text="nothing will come of", limit=20)).passages
    assert len(passages) >= 4
    for passage in passages:
        stored = built.documents.read_text(
            passage.document_id, passage.document_version, passage.start_char, passage.end_char
        )
        assert stored == passage.text
    assert any(passage.text.split() == ["Nothing", "will", "come", "of"] for passage in passages)


def test_splitter_that_adds_text_costs_the_document_and_says_so(
    parts: Callable[..., Components], foreign: str, plays: Path
) -> None:
    (plays / "lear.pages").rename(plays / "lear.txt")
    built = parts(splitter=f"{foreign}.Words", splitter_options={"prefix": "Summary: "})
    [skipped] = _ingested(built, plays).skipped
    assert "'Summary: Nothing will" in skipped.message
    assert not any((built.settings.data_folder / "files").rglob("*lear*"))


def test_splitter_with_too_long_pieces_costs_the_document(
    parts: Callable[..., Components], foreign: str, tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "a.txt").write_text(" ".join(f"word{n}" for n in range(400)))
    built = parts(splitter=f"{foreign}.Words", splitter_options={"words": 300})
    [skipped] = _ingested(built, folder).skipped
    assert "lower its chunk size" in skipped.message


def test_splitter_of_another_recipe_or_without_texts_is_refused(
    parts: Callable[..., Components], foreign: str, plays: Path
) -> None:
    (plays / "lear.pages").rename(plays / "lear.txt")
    plain = parts()
    _ingested(plain, plays)
    other = parts(splitter=f"{foreign}.Words")
    with pytest.raises(InvalidConfiguration, match="split by 'Ragstone'"):
        list(other.ingester.ingest(other.collections.get("plays"), walk([plays])))
    wrong = parts(splitter=f"{foreign}.Words", splitter_options={"sise": 1})
    wrong.collections.create("wrong", wrong.recipe())
    with pytest.raises(InvalidConfiguration, match="sise"):
        list(wrong.ingester.ingest(wrong.collections.get("wrong"), walk([plays])))
    numbers = parts(splitter=f"{foreign}.numbers")
    numbers.collections.create("numbers", numbers.recipe())
    with pytest.raises(InvalidConfiguration, match="no pieces of text"):
        list(numbers.ingester.ingest(numbers.collections.get("numbers"), walk([plays])))


@pytest.mark.parametrize("chunk_size", [20, 80])
def test_recursive_splitter_of_langchain_is_located(chunk_size: int) -> None:
    splitters = pytest.importorskip("langchain_text_splitters")
    splitter = splitters.RecursiveCharacterTextSplitter(chunk_size=chunk_size, chunk_overlap=10)
    text = "\n\n".join([*TEXTS, *TEXTS, "Tab\tand  two spaces.\r\nNext line."])
    pieces = splitter.split_text(text)
    spans = list(locate(text, pieces))
    assert [text[start:end] for start, end in spans] == pieces
    assert [start for start, _ in spans] == sorted({start for start, _ in spans})
