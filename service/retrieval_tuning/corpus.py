"""A collection as training asks for it: passages as they are embedded, found by the live build."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Row, Select, func, or_, select

from infra.contracts import PUBLIC, Access
from infra.database.schema import chunk, document, document_reader, file
from infra.errors import InvalidRequest
from retrieval.access import readable
from retrieval.indexes import Hits
from training.retrieval_models.corpus import Piece
from training.retrieval_models.specification import EmbedderTuning, Tuning

if TYPE_CHECKING:
    from retrieval.collections import Collection
    from retrieval.view import View
    from service.wiring import Components

TUNABLE = ("onnx", "sentence_transformers")
"""Embedders that compute a sentence-transformers model."""
ASKED_WORDS = 40
"""Of a passage, by which it is looked for."""
LOOKED_AT = 30
"""Passages with such words, among which it has to be."""
PAGE = 2_000


class CollectionCorpus:
    """What of a collection some readers may read."""

    def __init__(
        self, parts: Components, whole: Collection, access: Access | None, *, is_read: bool
    ) -> None:
        """Take a collection.

        Args:
            parts: of this process.
            whole: the collection, with its live build.
            access: of the readers; None is the operator.
            is_read: whether passages are as a reranker reads them, and not as they are embedded.
        """
        self._parts = parts
        self._whole = whole
        self._access = access
        self._is_read = is_read
        self._last: tuple[str, NDArray[np.float32]] | None = None
        self.name = whole.name
        self.chunk_tokens = whole.recipe.chunk_tokens
        self.model = model_of(whole)

    @property
    def digest(self) -> str:
        """Of what the documents hold and of what the build was made with."""
        with self._parts.database.read() as connection:
            digests = connection.scalars(
                select(document.c.digest).where(*self._mine()).order_by(document.c.digest)
            ).all()
        text = "\n".join([self._whole.recipe.digest, *digests])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def holding(self, words: str, document: str | None) -> Sequence[Piece]:
        wanted = normal(words)
        if document is not None:
            rows: Sequence[Any] = self._rows(_named(document))
        else:
            asked = " ".join(words.split()[:ASKED_WORDS])
            rows = self._read(self.lexical(asked, LOOKED_AT))
        return [self._piece(row) for row in rows if _holds(row, wanted)]

    def named(self, document: str) -> frozenset[str]:
        with self._parts.database.read() as connection:
            return frozenset(connection.scalars(self._ids().where(_named(document))))

    def best_of(self, document: str, question: str) -> Piece | None:
        rows = self._rows(_named(document))
        if not rows:
            return None
        likeness = vectors_of(rows) @ self._asked(question)
        return self._piece(rows[int(np.argmax(likeness))])

    def near(self, question: str, limit: int) -> Sequence[Piece]:
        index = self._view.index
        hits = index.dense(self._asked(question), limit, documents=self._documents)
        scores = dict(zip(hits.chunk_ids.tolist(), hits.scores.tolist(), strict=True))
        return [self._piece(row, score=scores[row.id]) for row in self._read(hits)]

    def candidates(self, question: str, limit: int) -> Sequence[Piece]:
        """Return what search finds, best first, as a reranker is given it."""
        from retrieval.search import SearchRequest

        request = SearchRequest(
            question, limit=limit, rerank=False, min_score=0.0, diversity=0.0, neighbours=0,
            multi_query=False, access=self._access,
        )  # fmt: skip
        passages = self._parts.retriever.search(self._whole, request).passages
        scores = {each.chunk_id: each.score for each in passages}
        keys = np.array(list(scores), dtype=np.int64)
        rows = self._read(Hits(keys, keys.astype(np.float32)))
        return [self._piece(row, score=scores[row.id]) for row in rows]

    def likeness(self, question: str, keys: Sequence[int]) -> Sequence[float]:
        found = vectors_of(self._whole_rows(keys)) @ self._asked(question)
        return [float(each) for each in found]

    def read(self, keys: Sequence[int]) -> Sequence[str]:
        """Return passages as a reranker reads them."""
        return [_as_read(row) for row in self._whole_rows(keys)]

    def lexical(self, question: str, limit: int) -> Hits:
        """Return the passages that are found by words."""
        return self._view.index.lexical(question, limit, documents=self._documents)

    def pages(self) -> Iterator[Sequence[Row[Any]]]:
        """Yield all passages, in the order of their keys, some at a time."""
        after = 0
        while rows := self._rows(chunk.c.id > after, limit=PAGE):
            yield rows
            after = rows[-1].id

    def text(self, row: Row[Any]) -> str:
        """Return what is read of a passage."""
        if self._is_read:
            return _as_read(row)
        context = row.heading or row.title
        return f"{context}\n{row.text}" if context else str(row.text)

    @cached_property
    def _view(self) -> View:
        view = self._parts.views.get(self._whole)
        view.refresh()
        return view

    @cached_property
    def _documents(self) -> NDArray[np.int64] | None:
        """The numbers of those that the readers may read; None are all."""
        if self._access is None:
            return None
        return self._view.selection.documents(self._access, None)

    def _read(self, hits: Hits) -> list[Row[Any]]:
        keys = hits.chunk_ids.tolist()
        rows = {row.id: row for row in self._rows(chunk.c.id.in_(keys))}
        return [rows[key] for key in keys if key in rows]

    def _whole_rows(self, keys: Sequence[int]) -> list[Row[Any]]:
        rows = {row.id: row for row in self._rows(chunk.c.id.in_(keys))}
        if any(key not in rows for key in keys):
            raise InvalidRequest(f"Passages of {self.name!r} were removed meanwhile; run it again")
        return [rows[key] for key in keys]

    def _rows(self, *wanted: ColumnElement[bool], limit: int | None = None) -> Sequence[Row[Any]]:
        with self._parts.database.read() as connection:
            return connection.execute(self._select().where(*wanted).limit(limit)).all()

    def _select(self) -> Select[Any]:
        return (
            select(
                chunk.c.id, chunk.c.heading, chunk.c.text, chunk.c.vector,
                document.c.title, document.c.source, document.c.file_id, file.c.filename,
            )
            .join(document, document.c.id == chunk.c.document_id)
            .join(file, file.c.id == document.c.file_id)
            .where(chunk.c.build_id == self._whole.build_id, *self._mine())
            .order_by(chunk.c.id)
        )  # fmt: skip

    def _ids(self) -> Select[tuple[str]]:
        return select(document.c.file_id).where(*self._mine())

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        of_collection = document.c.collection_id == self._whole.id
        return of_collection, document.c.status == "completed", readable(self._access)

    def _piece(self, row: Row[Any], *, score: float = 0.0) -> Piece:
        return Piece(row.id, row.file_id, row.source, self.text(row), score)

    def _asked(self, question: str) -> NDArray[np.float32]:
        if self._last is None or self._last[0] != question:  # several are asked of one question
            embedder = self._parts.embedders.of(self._whole.recipe, collection=self.name)
            self._last = question, embedder.embed([question], kind="query")[0]
        return self._last[1]


def open_corpus(parts: Components, spec: Tuning) -> CollectionCorpus:
    """Open what of a collection a tuning may learn from.

    Raises:
        NotFound: there is no such collection.
        InvalidRequest: it holds documents of several tenants, and nobody said whose are meant.
    """
    data = spec.data
    whole = parts.collections.get(data.collection)
    access = None
    if data.readers is not None:
        access = Access(data.readers.tenant, frozenset(data.readers.principals))
    elif not data.all_tenants:
        _require_one_audience(parts, whole)
    return CollectionCorpus(parts, whole, access, is_read=not isinstance(spec, EmbedderTuning))


def vectors_of(rows: Sequence[Row[Any]]) -> NDArray[np.float32]:
    """Return the stored vectors of some passages, `(len(rows), dimension)`."""
    return np.stack([np.frombuffer(row.vector, dtype="<f2") for row in rows]).astype(np.float32)


def model_of(whole: Collection) -> str | None:
    """Return the model that a collection is built with; None where it is none that can be tuned."""
    from retrieval.embedders._model_folder import locate

    recipe = whole.recipe
    if recipe.embedder not in TUNABLE:
        return None
    named = (recipe.embedder_options or {}).get("model")
    return str(named) if named is not None else str(locate(None).path)


def normal(text: str) -> str:
    """Return a text as two are compared: its words, whatever their case and the spaces."""
    return " ".join(text.casefold().split())


def _require_one_audience(parts: Components, whole: Collection) -> None:
    """Raise where what some readers may not see would shape what they find."""
    with parts.database.read() as connection:
        tenants = connection.scalars(
            select(document.c.tenant).where(document.c.collection_id == whole.id).distinct()
        ).all()
        listed = connection.scalar(
            select(func.count())
            .select_from(document_reader)
            .join(document, document.c.id == document_reader.c.document_id)
            .where(document.c.collection_id == whole.id, document_reader.c.principal != PUBLIC)
        )
    if len(tenants) > 1 or listed:
        raise InvalidRequest(
            f"{whole.name!r} holds documents that not everybody may read; give data.readers, "
            "whose documents are learned from, or data.all_tenants: true"
        )


def _as_read(row: Row[Any]) -> str:
    """Return what `retrieval.search` shows rerankers of a passage."""
    return f"{row.heading or row.title or row.filename}\n{row.text}"


def _named(name: str) -> ColumnElement[bool]:
    end = document.c.source.endswith(f"/{name.lstrip('/')}", autoescape=True)
    return or_(document.c.file_id == name, document.c.source == name, end)


def _holds(row: Row[Any], wanted: str) -> bool:
    """Tell whether a passage has the words, or is a part of them."""
    text = normal(row.text)
    return bool(text) and (wanted in text or text in wanted)
