"""A collection as LangChain sees it: a retriever and a vector store, with source spans."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pydantic import ConfigDict
from sqlalchemy import select

from infra.contracts import Passage
from infra.database.engine import Database
from infra.database.schema import document
from infra.errors import InvalidRequest
from infra.plugins import require
from retrieval.collections import Collection
from retrieval.commit import Committed
from retrieval.documents import Documents
from retrieval.files import Files
from retrieval.filters import Filter, parse
from retrieval.ingest import Ingester, Skipped
from retrieval.search import Retriever, SearchRequest
from retrieval.sources import Source

require("langchain_core", extra="langchain")

from langchain_core.callbacks import CallbackManagerForRetrieverRun  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from langchain_core.vectorstores import VectorStore  # noqa: E402

SCHEME = "langchain:"
"""Before the id, in the source of a document that came in through `add_texts`."""


class CollectionRetriever(BaseRetriever):
    """Ragstone's search, with its fusion and all its stages, as a LangChain retriever."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    retriever: Retriever
    collection: Collection
    request: SearchRequest = SearchRequest(text="")
    """Everything about a search but its text."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
    ) -> list[Document]:
        found = self.retriever.search(self.collection, replace(self.request, text=query))
        return [as_langchain(passage) for passage in found.passages]


class CollectionStore(VectorStore):
    """A collection as a LangChain vector store.

    A text is added as one document, which Ragstone splits; its id names that document. Vectors come
    from the collection's own embedder, and a search is hybrid, so one by vector is not offered.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        database: Database,
        files: Files,
        ingester: Ingester,
        retriever: Retriever,
    ) -> None:
        self._collection = collection
        self._database = database
        self._files = files
        self._ingester = ingester
        self._retriever = retriever
        self._documents = Documents(database)
        self._sequence = 0

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[Any, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """Add texts, each durable once this returns; an id that is in already is replaced.

        Raises:
            InvalidRequest: the lists differ in length, metadata are nested, or a text cannot be
                indexed; the other texts are in.
        """
        _no_options(options)
        given = list(texts)
        # LangChain's own documents may mix given and missing ids.
        names = [name or str(uuid.uuid4()) for name in ids or [""] * len(given)]
        attributes = [_without_none(each) for each in metadatas or [{}] * len(given)]
        if not len(given) == len(names) == len(attributes):
            raise InvalidRequest(
                f"{len(given)} texts, {len(names)} ids and {len(attributes)} metadatas;"
                " give one of each per text"
            )
        refused: list[Skipped] = []
        with tempfile.TemporaryDirectory() as folder:
            sources = _written(Path(folder), given, names, attributes)
            for event in self._ingester.ingest(self._collection, sources):
                if isinstance(event, Skipped):
                    refused.append(event)
                elif isinstance(event, Committed):
                    self._sequence = max(self._sequence, event.sequence)
        if refused:
            first = refused[0]
            raise InvalidRequest(
                f"{len(refused)} of {len(given)} texts cannot be indexed;"
                f" {unquote(first.uri.removeprefix(SCHEME))!r}: {first.message}"
            )
        return names

    def delete(self, ids: list[str] | None = None, **options: Any) -> bool:
        """Remove documents by the ids that `add_texts` returned or a search's `Document.id`.

        Ids that are not in are passed over.

        Raises:
            InvalidRequest: no ids; a collection is removed by name, not by accident.
        """
        _no_options(options)
        if ids is None:
            raise InvalidRequest("Say which ids to delete", parameter="ids")
        for file_id in self._file_ids(ids).values():
            self._sequence = max(self._sequence, self._documents.delete(self._collection, file_id))
        self._files.sweep()
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return whole documents with their text as it is stored; unknown ids are left out."""
        found = []
        for name, file_id in self._file_ids(ids).items():
            stored = self._documents.get(self._collection, file_id)
            text = self._documents.read_text(file_id, stored.version, 0, stored.characters)
            metadata = {**stored.metadata, "source": stored.source, "document_id": file_id}
            found.append(Document(id=name, page_content=text or "", metadata=metadata))
        return found

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """Return the best passages; `filter` is a Ragstone filter, or metadata that must equal."""
        return [found for found, _ in self.similarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[tuple[Document, float]]:
        """Return the best passages with scores between 0 and 1; larger is better."""
        _no_options(options)
        request = SearchRequest(text=query, limit=k, filter=_filter(filter))
        return [(as_langchain(passage), passage.score) for passage in self._search(request)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,  # noqa: ARG002
        lambda_mult: float = 0.5,
        *,
        filter: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[Document]:
        """Return passages that differ; how many are looked at is Ragstone's choice."""
        _no_options(options)
        request = SearchRequest(
            text=query, limit=k, filter=_filter(filter), diversity=1 - lambda_mult
        )
        return [as_langchain(passage) for passage in self._search(request)]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],  # noqa: ARG003
        embedding: Embeddings,
        metadatas: list[dict[Any, Any]] | None = None,  # noqa: ARG003
        *,
        ids: list[str] | None = None,  # noqa: ARG003
        **options: Any,  # noqa: ARG003
    ) -> CollectionStore:
        """Refuse: a collection has an embedder and a database of its own.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(
            f"A collection embeds by itself, not with {type(embedding).__name__!r}; open a"
            " CollectionStore over it and call add_texts"
        )

    def _select_relevance_score_fn(self) -> Any:
        return float

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        return self.similarity_search_with_score(query, k, **options)

    def _search(self, request: SearchRequest) -> Sequence[Passage]:
        request = replace(request, min_sequence=self._sequence)
        return self._retriever.search(self._collection, request).passages

    def _file_ids(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the public ids of those that are in, by the id they were asked for with."""
        sources = {_uri(name): name for name in ids}
        with self._database.read() as connection:
            rows = connection.execute(
                select(document.c.source, document.c.file_id).where(
                    document.c.collection_id == self._collection.id,
                    document.c.source.in_(sources) | document.c.file_id.in_(ids),
                )
            ).all()
        found = {sources.get(row.source, row.file_id): row.file_id for row in rows}
        return {name: found[name] for name in ids if name in found}


def as_langchain(passage: Passage) -> Document:
    """Return a passage as LangChain's document; its metadata say where in which source it stands.

    `id` is the document's, so several passages may share it; `chunk_id` is the passage's own.
    """
    metadata = {
        **passage.metadata,
        "source": passage.source,
        "title": passage.title,
        "heading": passage.heading,
        "page": passage.page,
        "document_id": passage.document_id,
        "document_version": passage.document_version,
        "chunk_id": passage.chunk_id,
        "start_char": passage.start_char,
        "end_char": passage.end_char,
        "score": passage.score,
    }
    is_own = passage.source.startswith(SCHEME)
    name = unquote(passage.source.removeprefix(SCHEME)) if is_own else passage.document_id
    return Document(id=name, page_content=passage.text, metadata=metadata)


def _uri(name: str) -> str:
    return f"{SCHEME}{quote(name, safe='')}"


def _written(
    folder: Path, texts: Sequence[str], names: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
) -> Iterator[Source]:
    for number, (text, name, metadata) in enumerate(zip(texts, names, metadatas, strict=True)):
        path = folder / f"{number}.txt"
        path.write_bytes(text.encode("utf-8", errors="replace"))
        yield Source(_uri(name), path, f"{name}.txt", metadata)


def _without_none(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in metadata.items() if value is not None}


def _filter(raw: Mapping[str, Any] | None) -> Filter | None:
    if not raw:
        return None
    if "type" in raw and ({"filters", "filter"} & set(raw) or {"key", "value"} <= set(raw)):
        return parse(raw)
    equal = [{"type": "eq", "key": key, "value": value} for key, value in raw.items()]
    return parse(equal[0] if len(equal) == 1 else {"type": "and", "filters": equal})


def _no_options(options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidRequest(f"Unknown options {sorted(options)!r}; leave them out")
