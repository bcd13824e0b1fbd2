"""LlamaIndex: sentence splitter, HuggingFaceEmbedding, FAISS store, bm25s retriever."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
from llama_index.core import (  # type: ignore[import-not-found]
    Document,
    StorageContext,
    VectorStoreIndex,
)
from llama_index.core.node_parser import SentenceSplitter  # type: ignore[import-not-found]
from llama_index.core.schema import TextNode  # type: ignore[import-not-found]
from llama_index.embeddings.huggingface import HuggingFaceEmbedding  # type: ignore[import-not-found]
from llama_index.retrievers.bm25 import BM25Retriever  # type: ignore[import-not-found]
from llama_index.vector_stores.faiss import FaissVectorStore  # type: ignore[import-not-found]

from benchmarks.peers.job import Job, Stopwatch, serve, set_threads, token_counter


class LlamaIndex:
    """Documents carry no metadata: it would be prepended to the text that is embedded."""

    def __init__(self, job: Job) -> None:
        set_threads(job)
        self.embedding = Stopwatch()
        self._embeddings = HuggingFaceEmbedding(
            model_name=job.model_path, device="cpu", embed_batch_size=job.batch_size
        )
        model = self._embeddings._model
        self._dimension = model.get_embedding_dimension()
        model.encode = self.embedding.timed(model.encode)
        count = token_counter(job.model_path)
        self._splitter = SentenceSplitter(
            chunk_size=job.chunk_tokens,
            chunk_overlap=job.chunk_overlap_tokens,
            # The splitter takes the length of what its tokenizer returns.
            tokenizer=lambda text: range(count(text)),
        )

    def split(self, files: Sequence[Path]) -> list[Any]:
        documents = [Document(text=file.read_text(encoding="utf-8")) for file in files]
        return list(self._splitter.get_nodes_from_documents(documents))

    def wrap(self, chunks: Sequence[str]) -> list[Any]:
        return [TextNode(text=chunk) for chunk in chunks]

    def texts(self, pieces: list[Any]) -> list[str]:
        return [piece.get_content() for piece in pieces]

    def index(self, pieces: list[Any], folder: Path) -> None:
        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(self._dimension))
        storage = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex(pieces, storage_context=storage, embed_model=self._embeddings)
        index.storage_context.persist(str(folder / "vectors"))
        lexical = BM25Retriever.from_defaults(nodes=pieces, similarity_top_k=10)
        lexical.persist(str(folder / "bm25"))


if __name__ == "__main__":
    serve(LlamaIndex)
