"""The distributed index: the same view in a Milvus cluster, or in Milvus Lite in this process."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration, StorageFailed
from infra.plugins import require
from retrieval.indexes import Change, Hits
from retrieval.indexes._analysis import MAX_TERMS, analyzer, body, query_terms
from retrieval.indexes._batch import query_vector, reduce
from retrieval.indexes._milvus_hits import gone, ids_of, is_cut, scores_of, slices
from retrieval.indexes._milvus_schema import WATERMARKS, create, create_watermarks, dimension_of
from retrieval.indexes._ranking import (
    LEXICAL_DECIMALS,
    best,
    inner_products,
    nothing,
    rows_or_zeros,
)
from retrieval.indexes._read_write_lock import ReadWriteLock

MAX_RESULTS = 16_384
"""Of one search; Milvus gives no more."""
ROWS_AT_ONCE = 1_000
IDS_AT_ONCE = 10_000
DOCUMENTS_AT_ONCE = 20_000
"""Document numbers in one filter; a longer selector becomes several searches."""
TERMS_AT_ONCE = 1_000
MAX_TERMS_OF_A_CHUNK = 7_000
"""What 65,535 bytes, the longest text that Milvus takes, have room for."""
DENSE_TOLERANCE = 1e-4
"""By which Milvus's float32 products may differ from ours, relative to the largest score."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `retrieval.index_options` may hold."""

    uri: str = ""
    """`https://host:19530`; empty for a file of Milvus Lite in the index's folder."""
    token_variable: str = "MILVUS_TOKEN"
    """Environment variable with the token or `user:password`; unset means none."""
    database: str = ""
    prefix: str = "ragstone"
    """Of the names of Milvus collections; two services that share a cluster need two."""
    index_type: str = "FLAT"
    """Of the vectors; FLAT is exact, HNSW and others are not."""
    index_params: Mapping[str, Any] = field(default_factory=dict)
    search_params: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: float = 30.0


def build(folder: Path, *, dimension: int, **options: Any) -> MilvusIndex:
    """Open the Milvus collection of a build, or create it.

    Raises:
        InvalidConfiguration: an unknown option, or vectors of another dimension are in it.
        StorageFailed: Milvus cannot be reached.
    """
    return MilvusIndex(folder, dimension=dimension, options=_options(options))


def remove(folder: Path, **options: Any) -> None:
    """Drop the Milvus collection of a build that is gone, and its watermark.

    Raises:
        StorageFailed: Milvus cannot be reached.
    """
    chosen = _options(options)
    if not chosen.uri:  # its file goes with the folder
        return
    client = _connect(folder, chosen)
    name = _name(folder, chosen)
    with _reported("drop an index"):
        client.drop_collection(name)
        if client.has_collection(WATERMARKS):
            client.delete(WATERMARKS, ids=[name])
    client.close()


class MilvusIndex:
    """A build's chunks in one Milvus collection; see `retrieval.indexes.SearchIndex`.

    Milvus gets no text: terms are made here, as for the other indexes, and sent as opaque words.
    The watermark is written after a batch, so that a batch cut short is applied again, which
    changes nothing where it was applied. Searches of this process see whole batches; those of
    another process may see a batch half applied, which only costs candidates: what is returned is
    read from the database.
    """

    def __init__(self, folder: Path, *, dimension: int, options: Options) -> None:
        self._dimension = dimension
        self._options = options
        self._name = _name(folder, options)
        self._analyzer = analyzer()
        self._analyzing = threading.Lock()
        self._lock = ReadWriteLock()
        self._client = _connect(folder, options)
        with _reported("open the index"):
            self._watermark = self._open()

    @property
    def watermark(self) -> int:
        return self._watermark

    def __len__(self) -> int:
        with self._lock.reading(), _reported("count chunks"):
            [row] = self._client.query(self._name, filter="", output_fields=["count(*)"])
        return int(row["count(*)"])

    def apply(self, changes: Sequence[Change]) -> None:
        batch = reduce(changes, after=self._watermark, dimension=self._dimension)
        if batch is None:
            return
        rows = [self._row(*each) for each in zip(batch.upserts, batch.vectors, strict=True)]
        with self._lock.writing(), _reported("apply changes"):
            for ids in slices(gone(batch), IDS_AT_ONCE):
                self._client.delete(self._name, ids=ids)
            for some in slices(rows, ROWS_AT_ONCE):
                self._client.upsert(self._name, some)
            self._store_watermark(batch.watermark)
            self._watermark = batch.watermark

    def dense(
        self, vector: NDArray[np.float32], limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        query = query_vector(vector, dimension=self._dimension)

        def found(count: int, chosen: str) -> list[dict[str, Any]]:
            return self._search(
                query.tolist(), "vector", count, chosen=chosen, fields=["chunk_id", "vector"]
            )

        hits = self._complete(found, limit, documents, tolerance=DENSE_TOLERANCE)
        if not hits:
            return nothing()
        vectors = np.array([hit["entity"]["vector"] for hit in hits], dtype=np.float16)
        return best(ids_of(hits), inner_products(vectors, query), limit)

    def lexical(
        self, query: str, limit: int, *, documents: NDArray[np.int64] | None = None
    ) -> Hits:
        text = self._question(query)
        if not text:
            return nothing()

        def found(count: int, chosen: str) -> list[dict[str, Any]]:
            return self._search(text, "sparse", count, chosen=chosen, fields=["chunk_id"])

        hits = self._complete(found, limit, documents, tolerance=10**-LEXICAL_DECIMALS)
        return best(ids_of(hits), np.round(np.abs(scores_of(hits)), LEXICAL_DECIMALS), limit)

    def hybrid(
        self,
        query: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        documents: NDArray[np.int64] | None = None,
    ) -> Hits:
        """Dense and lexical search in one request, fused by Milvus by reciprocal ranks (k = 60)."""
        milvus = require("pymilvus", extra="milvus")
        point = query_vector(vector, dimension=self._dimension)
        text = self._question(query)
        if limit < 1 or (documents is not None and not len(documents)):
            return nothing()
        chosen = "" if documents is None else _selector(documents.tolist())
        asked = [([point.tolist()], "vector"), *([([text], "sparse")] if text else [])]
        requests = [
            milvus.AnnSearchRequest(data, name, self._search_params(name), limit, expr=chosen)
            for data, name in asked
        ]
        with self._lock.reading(), _reported("search"):
            [hits] = self._client.hybrid_search(
                self._name, requests, milvus.RRFRanker(60), limit=limit, output_fields=["chunk_id"]
            )
        return best(ids_of(hits), scores_of(hits), limit)

    def vectors(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        with self._lock.reading(), _reported("read vectors"):
            rows = self._client.get(
                self._name, ids=chunk_ids.tolist(), output_fields=["chunk_id", "vector"]
            )
        held = {row["chunk_id"]: row["vector"] for row in rows}
        return rows_or_zeros(held, chunk_ids, dimension=self._dimension)

    def is_due(self) -> bool:
        return False

    def checkpoint(self) -> None:
        """Have Milvus seal what it holds in memory; its log has it already."""
        with _reported("flush the index"):
            self._client.flush(self._name)

    def close(self) -> None:
        self._client.close()

    def _open(self) -> int:
        client = self._client
        if not client.has_collection(WATERMARKS):
            create_watermarks(client)
        client.load_collection(WATERMARKS)
        if not client.has_collection(self._name):
            client.delete(WATERMARKS, ids=[self._name])  # of a collection that was dropped since
            create(
                client,
                self._name,
                dimension=self._dimension,
                index_type=self._options.index_type,
                index_params=self._options.index_params,
            )
        held = dimension_of(client.describe_collection(self._name))
        if held != self._dimension:
            raise InvalidConfiguration(
                f"Milvus collection {self._name!r} holds vectors of {held!r} numbers, not"
                f" {self._dimension!r}; set retrieval.index_options.prefix to another"
            )
        client.load_collection(self._name)
        rows = client.get(WATERMARKS, ids=[self._name], output_fields=["watermark"])
        return int(rows[0]["watermark"]) if rows else 0

    def _store_watermark(self, watermark: int) -> None:
        row = {"name": self._name, "watermark": watermark, "nothing": [0.0, 0.0]}
        self._client.upsert(WATERMARKS, [row])

    def _row(self, change: Change, vector: NDArray[np.float16]) -> dict[str, Any]:
        terms = self._analyze(body(change.heading, change.text))[:MAX_TERMS_OF_A_CHUNK]
        return {
            "chunk_id": change.chunk_id,
            "document_id": change.document_id,
            "terms": " ".join(map(_word, terms)),
            "vector": vector.astype(np.float32).tolist(),
        }

    def _analyze(self, text: str) -> list[str]:
        with self._analyzing:
            terms: list[str] = self._analyzer.analyze(text)
        return terms

    def _question(self, query: str) -> str:
        words = [_word(term) for term in query_terms(query, self._analyze)]
        return " ".join(words if len(words) <= MAX_TERMS else self._weightiest(words))

    def _weightiest(self, words: Sequence[str]) -> list[str]:
        """The words whose best chunk scores most: a term's score rises with its rarity."""
        weights: dict[str, float] = {}
        with self._lock.reading(), _reported("search"):
            for some in slices(words, TERMS_AT_ONCE):
                answers = self._client.search(
                    self._name,
                    data=some,
                    anns_field="sparse",
                    limit=1,
                    output_fields=["chunk_id"],
                    search_params=self._search_params("sparse"),
                )
                for word, hits in zip(some, answers, strict=True):
                    if hits:
                        weights[word] = abs(hits[0]["distance"])
        return sorted(weights, key=lambda word: (-weights[word], word))[:MAX_TERMS]

    def _complete(
        self,
        found: Callable[[int, str], list[dict[str, Any]]],
        limit: int,
        documents: NDArray[np.int64] | None,
        *,
        tolerance: float,
    ) -> list[dict[str, Any]]:
        """Hits that hold the best `limit`, and all that tie with the last of them."""
        if limit < 1:
            return []
        selectors = [""]
        if documents is not None:
            parts = slices(documents.tolist(), DOCUMENTS_AT_ONCE)
            selectors = [_selector(part) for part in parts]
        every: list[dict[str, Any]] = []
        with self._lock.reading(), _reported("search"):
            for chosen in selectors:
                asked = limit + 8
                hits = found(min(asked, MAX_RESULTS), chosen)
                while asked < MAX_RESULTS and is_cut(hits, limit, asked, tolerance=tolerance):
                    asked *= 4
                    hits = found(min(asked, MAX_RESULTS), chosen)
                every += hits
        return every

    def _search(
        self, data: Any, name: str, count: int, *, chosen: str, fields: list[str]
    ) -> list[dict[str, Any]]:
        [hits] = self._client.search(
            self._name,
            data=[data],
            anns_field=name,
            limit=count,
            filter=chosen,
            output_fields=fields,
            search_params=self._search_params(name),
        )
        return list(hits)

    def _search_params(self, name: str) -> dict[str, Any]:
        if name == "sparse":
            return {"metric_type": "BM25", "params": {}}
        return {"metric_type": "IP", "params": dict(self._options.search_params)}


def _options(given: Mapping[str, Any]) -> Options:
    try:
        return Options(**given)
    except TypeError as error:
        known = ", ".join(Options.__dataclass_fields__)
        raise InvalidConfiguration(
            f"retrieval.index_options: {error}; there are {known}"
        ) from error


def _connect(folder: Path, options: Options) -> Any:
    milvus = require("pymilvus", extra="milvus")
    if not options.uri:
        require("milvus_lite", extra="milvus")
        # Its server runs in this process, and logs a traceback for each method it does not have.
        logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
        folder.mkdir(parents=True, exist_ok=True)
    with _reported(f"connect to {options.uri or 'Milvus Lite'!r}"):
        return milvus.MilvusClient(
            options.uri or str(folder / "milvus.db"),
            token=os.environ.get(options.token_variable, ""),
            db_name=options.database,
            timeout=options.timeout_seconds,
        )


def _name(folder: Path, options: Options) -> str:
    """The folder's last names tell collection and build; Milvus takes letters and digits."""
    plain = "_".join([options.prefix, folder.parent.name, folder.name])
    return re.sub(r"\W", "_", plain, flags=re.ASCII)[-200:]


@contextmanager
def _reported(action: str) -> Iterator[None]:
    exceptions = require("pymilvus", extra="milvus").exceptions
    try:
        yield
    except exceptions.MilvusException as error:
        raise StorageFailed(f"Milvus cannot {action}: {error.message}") from error


def _word(term: str) -> str:
    """A term as eight letters: any engine's tokenizer leaves it whole, and it tells no text."""
    digest = hashlib.blake2b(term.encode("utf-8", errors="replace"), digest_size=5).digest()
    return base64.b32encode(digest).decode().lower()


def _selector(documents: Sequence[int]) -> str:
    return f"document_id in {list(documents)}"
