"""Haystack: word splitter, sentence-transformers embedder, its in-memory store with BM25."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haystack import Document  # type: ignore[import-not-found]
from haystack.components.preprocessors import DocumentSplitter  # type: ignore[import-not-found]
from haystack.document_stores.in_memory import (  # type: ignore[import-not-found]
    InMemoryDocumentStore,
)
from haystack.utils import ComponentDevice  # type: ignore[import-not-found]
from haystack_integrations.components.embedders.sentence_transformers import (  # type: ignore[import-not-found]
    SentenceTransformersDocumentEmbedder,
)

from benchmarks.peers.job import Job, Stopwatch, serve, set_threads

TOKENS_PER_WORD = 4 / 3
"""Its token splitter needs a downloaded vocabulary; words of English prose at this rate."""


class Haystack:
    """The in-memory store keeps vectors and BM25 statistics; it is saved as JSON."""

    def __init__(self, job: Job) -> None:
        set_threads(job)
        self.embedding = Stopwatch()
        self._embedder = SentenceTransformersDocumentEmbedder(
            model=job.model_path,
            device=ComponentDevice.from_str("cpu"),
            batch_size=job.batch_size,
            normalize_embeddings=True,
            progress_bar=False,
            local_files_only=True,
        )
        self._embedder.warm_up()
        model = self._embedder.embedding_backend.model
        model.encode = self.embedding.timed(model.encode)
        self._splitter = DocumentSplitter(
            split_by="word",
            split_length=round(job.chunk_tokens / TOKENS_PER_WORD),
            split_overlap=round(job.chunk_overlap_tokens / TOKENS_PER_WORD),
        )

    def split(self, files: Sequence[Path]) -> list[Any]:
        documents = [
            Document(content=file.read_text(encoding="utf-8"), meta={"source": str(file)})
            for file in files
        ]
        return list(self._splitter.run(documents)["documents"])

    def wrap(self, chunks: Sequence[str]) -> list[Any]:
        # Its ids are digests of the content; two equal chunks would be one document and an error.
        return [Document(id=str(number), content=chunk) for number, chunk in enumerate(chunks)]

    def texts(self, pieces: list[Any]) -> list[str]:
        return [piece.content for piece in pieces]

    def index(self, pieces: list[Any], folder: Path) -> None:
        store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
        store.write_documents(self._embedder.run(pieces)["documents"])
        store.save_to_disk(str(folder / "store.json"))
        store.shutdown()


if __name__ == "__main__":
    serve(Haystack)
