"""BM25 in tantivy: one index in a working folder, so that its statistics are global."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from infra.errors import CorruptIndex, StorageFailed
from retrieval.indexes import Change, Hits
from retrieval.indexes._analysis import MAX_TERMS, analyzer, body, query_terms, rarest
from retrieval.indexes._ranking import LEXICAL_DECIMALS, best, nothing

_ANALYZER = "ragstone"
_WRITER_MEMORY_BYTES = 64 << 20
"""A segment is written when this is full; it bounds what adding a whole collection takes."""
_FILTER_DOCUMENTS = 1_000
"""A filter of more documents costs over a millisecond inside tantivy, so a cheaper way is tried."""
_OVERFETCH = 10
"""Times the limit that the cheaper way reads: enough when a tenth of the hits are allowed."""
_SPARE = 16
"""Hits fetched beyond the limit: those that tie with the last one are ordered by chunk id."""


class Lexical:
    """The text side of an index. One thread at a time may change it, any number may search."""

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`, or create one.

        Raises:
            CorruptIndex: there is one, and it cannot be opened.
            StorageFailed: there is none, and it cannot be created.
        """
        exists = (folder / "meta.json").exists()
        try:
            self._index = tantivy.Index.open(str(folder)) if exists else _create(folder)
        except ValueError as error:
            failure = CorruptIndex if exists else StorageFailed
            raise failure(f"Cannot open the text index in {str(folder)!r}: {error}") from error
        self._schema = self._index.schema
        self._analyzer = analyzer()
        self._index.register_tokenizer(_ANALYZER, self._analyzer)
        self._index.config_reader("manual")
        self._writer: tantivy.IndexWriter | None = None

    def searcher(self) -> tantivy.Searcher:
        """Return the state after the last `replace`; it does not change any more."""
        return self._index.searcher()

    def replace(self, removed: Iterable[int], added: Sequence[Change]) -> None:
        """Remove chunks, then add chunks, in one commit.

        Raises:
            StorageFailed: the files cannot be written; nothing may have changed, or everything.
        """
        try:
            if self._writer is None:
                self._writer = self._index.writer(_WRITER_MEMORY_BYTES, 1)
            for chunk_id in removed:
                self._writer.delete_documents_by_term("chunk_id", chunk_id)
            for change in added:
                self._writer.add_document(_document(change))
            self._writer.commit()
            self._index.reload()
        except (ValueError, OSError, RuntimeError) as error:
            self._writer = None
            raise StorageFailed(f"Cannot write the text index: {error}") from error

    def settle(self) -> None:
        """Wait for merges in the background; no file changes until the next `replace`.

        Raises:
            StorageFailed: a merged file cannot be written.
        """
        if self._writer is None:
            return
        try:
            self._writer.wait_merging_threads()
            self._index.reload()
        except (ValueError, OSError, RuntimeError) as error:
            raise StorageFailed(f"Cannot write the text index: {error}") from error
        finally:
            self._writer = None

    def search(
        self,
        searcher: tantivy.Searcher,
        text: str,
        limit: int,
        *,
        documents: NDArray[np.int64] | None = None,
    ) -> Hits:
        terms = query_terms(text, self._analyzer.analyze)
        if len(terms) > MAX_TERMS:
            terms = rarest(terms, lambda term: searcher.doc_freq("text", term))
        if not terms or limit < 1 or not searcher.num_docs:
            return nothing()
        query = _any_of([Query.term_query(self._schema, "text", term, "freq") for term in terms])
        if documents is None:
            return _top(searcher, query, limit)
        if len(documents) > _FILTER_DOCUMENTS:
            hits = _filtered_afterwards(searcher, query, limit, documents=documents)
            if hits is not None:
                return hits
        return _top(searcher, self._within(query, documents), limit)

    def _within(self, query: Query, documents: NDArray[np.int64]) -> Query:
        chosen = Query.term_set_query(self._schema, "document_id", documents.tolist())
        unscored = Query.const_score_query(chosen, 0.0)
        return Query.boolean_query([(Occur.Must, unscored), (Occur.Must, query)])


def _create(folder: Path) -> tantivy.Index:
    folder.mkdir(parents=True, exist_ok=True)
    schema = (
        tantivy.SchemaBuilder()
        .add_integer_field("chunk_id", indexed=True, fast=True)
        .add_integer_field("document_id", indexed=True, fast=True)
        .add_text_field("text", tokenizer_name=_ANALYZER, index_option="freq")
        .build()
    )
    return tantivy.Index(schema, path=str(folder))


def _document(change: Change) -> tantivy.Document:
    document = tantivy.Document()
    document.add_integer("chunk_id", change.chunk_id)
    document.add_integer("document_id", change.document_id)
    document.add_text("text", body(change.heading, change.text))
    return document


def _any_of(queries: list[Query]) -> Query:
    # Not weighted or nested: tantivy skips blocks of postings only over plain terms.
    return Query.boolean_query([(Occur.Should, query) for query in queries])


def _top(searcher: tantivy.Searcher, query: Query, limit: int) -> Hits:
    asked = min(limit + _SPARE, searcher.num_docs)
    while True:
        addresses, scores = _fetch(searcher, query, asked)
        complete = len(scores) < asked or asked == searcher.num_docs
        if complete or scores[-1] < scores[limit - 1]:
            return best(_numbers(searcher, "chunk_id", addresses), scores, limit)
        asked = min(asked * 4, searcher.num_docs)


def _filtered_afterwards(
    searcher: tantivy.Searcher, query: Query, limit: int, *, documents: NDArray[np.int64]
) -> Hits | None:
    """Return the best hits in `documents`, or None if one look at the top does not settle it."""
    asked = min(limit * _OVERFETCH, searcher.num_docs)
    addresses, scores = _fetch(searcher, query, asked)
    allowed = np.isin(_numbers(searcher, "document_id", addresses), documents)
    complete = len(scores) < asked or asked == searcher.num_docs
    kept = scores[allowed]
    if not complete and (len(kept) < limit or scores[-1] >= kept[limit - 1]):
        return None
    return best(_numbers(searcher, "chunk_id", addresses)[allowed], kept, limit)


def _fetch(
    searcher: tantivy.Searcher, query: Query, limit: int
) -> tuple[list[tantivy.DocAddress], NDArray[np.float32]]:
    # Counting all hits would make tantivy visit every one of them.
    hits = searcher.search(query, limit, count=False).hits
    scores = np.array([score for score, _ in hits], dtype=np.float32)
    return [address for _, address in hits], np.round(scores, LEXICAL_DECIMALS)


def _numbers(
    searcher: tantivy.Searcher, field: str, addresses: list[tantivy.DocAddress]
) -> NDArray[np.int64]:
    return np.array(searcher.fast_field_values(field, addresses), dtype=np.int64)
