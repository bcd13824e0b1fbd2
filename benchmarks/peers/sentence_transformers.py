"""Plain sentence-transformers: encodes the chunks and keeps the vectors, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.job import Job, Stopwatch, serve, set_threads


class Plain:
    """The floor under every pipeline that uses this model; it has no splitter and no index."""

    def __init__(self, job: Job) -> None:
        from sentence_transformers import SentenceTransformer

        set_threads(job)
        self.embedding = Stopwatch()
        self._batch_size = job.batch_size
        self._encode = self.embedding.timed(
            SentenceTransformer(job.model_path, device="cpu").encode
        )

    def split(self, files: Sequence[Path]) -> list[str]:
        return [file.read_text(encoding="utf-8") for file in files]

    def wrap(self, chunks: Sequence[str]) -> list[str]:
        return list(chunks)

    def texts(self, pieces: list[str]) -> list[str]:
        return pieces

    def index(self, pieces: list[str], folder: Path) -> None:
        del folder
        self._encode(pieces, batch_size=self._batch_size, normalize_embeddings=True)


if __name__ == "__main__":
    serve(Plain)
