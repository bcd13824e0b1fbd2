"""LangChain: recursive splitter, HuggingFaceEmbeddings, FAISS, rank-bm25."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings  # type: ignore[import-not-found]
from langchain_text_splitters import RecursiveCharacterTextSplitter

from benchmarks.peers.job import Job, Stopwatch, serve, set_threads, token_counter


class LangChain:
    """Its BM25 retriever has no file format: that part lives in memory and is not saved."""

    def __init__(self, job: Job) -> None:
        set_threads(job)
        self.embedding = Stopwatch()
        self._embeddings = HuggingFaceEmbeddings(
            model_name=job.model_path,
            model_kwargs={"device": "cpu"},
            encode_kwargs={"batch_size": job.batch_size, "normalize_embeddings": True},
        )
        client = self._embeddings._client
        client.encode = self.embedding.timed(client.encode)
        self._splitter = RecursiveCharacterTextSplitter(
            chunk_size=job.chunk_tokens,
            chunk_overlap=job.chunk_overlap_tokens,
            length_function=token_counter(job.model_path),
        )

    def split(self, files: Sequence[Path]) -> list[Any]:
        documents = [
            Document(page_content=file.read_text(encoding="utf-8"), metadata={"source": str(file)})
            for file in files
        ]
        return list(self._splitter.split_documents(documents))

    def wrap(self, chunks: Sequence[str]) -> list[Any]:
        return [Document(page_content=chunk) for chunk in chunks]

    def texts(self, pieces: list[Any]) -> list[str]:
        return [piece.page_content for piece in pieces]

    def index(self, pieces: list[Any], folder: Path) -> None:
        store = FAISS.from_documents(pieces, self._embeddings)
        BM25Retriever.from_documents(pieces)
        store.save_local(str(folder))


if __name__ == "__main__":
    serve(LangChain)
