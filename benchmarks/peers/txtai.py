"""txtai: chonkie's splitter, its own pooling, FAISS, BM25 and SQLite content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from txtai import Embeddings  # type: ignore[import-not-found]
from txtai.pipeline import Segmentation  # type: ignore[import-not-found]

from benchmarks.peers.job import Job, Stopwatch, open_tokenizer, serve, set_threads


class Txtai:
    """`Embeddings` with `hybrid` (dense and BM25) and `content` (the texts are stored)."""

    def __init__(self, job: Job) -> None:
        set_threads(job)
        self.embedding = Stopwatch()
        self._settings = {
            "path": job.model_path,
            "hybrid": True,
            "content": True,
            "encodebatch": job.batch_size,
            "gpu": False,
        }
        self._split = Segmentation(
            chunker="recursive",
            tokenizer=open_tokenizer(job.model_path),
            chunk_size=job.chunk_tokens,
        )
        self._models: dict[str, Any] = {}
        self._new()
        (model,) = self._models.values()
        model.encode = self.embedding.timed(model.encode)

    def split(self, files: Sequence[Path]) -> list[str]:
        texts = [file.read_text(encoding="utf-8") for file in files]
        return [chunk for chunks in self._split(texts) for chunk in chunks]

    def wrap(self, chunks: Sequence[str]) -> list[str]:
        return list(chunks)

    def texts(self, pieces: list[str]) -> list[str]:
        return pieces

    def index(self, pieces: list[str], folder: Path) -> None:
        embeddings = self._new()
        embeddings.index(pieces)
        embeddings.save(str(folder / "index"))
        embeddings.close()

    def _new(self) -> Any:
        # It writes into the settings it is given, hence the copy; the models are loaded once.
        return Embeddings(dict(self._settings), models=self._models)


if __name__ == "__main__":
    serve(Txtai)
