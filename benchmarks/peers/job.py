"""The job a peer is given and the result it returns, as lines of JSON on its standard streams."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TextIO, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

OFFLINE = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_OFFLINE": "1",
}
"""Set before a peer's packages are imported: no reports home, no model hub."""


@dataclass(frozen=True, slots=True)
class Job:
    """Files to ingest with the peer's own splitter, or chunks to ingest as they are."""

    model_path: str
    files: list[str] = field(default_factory=list)
    chunks: list[str] = field(default_factory=list)
    """Where given, `files` is ignored: nothing is read or split."""
    chunk_tokens: int = 200
    chunk_overlap_tokens: int = 32
    batch_size: int = 32
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Result:
    """What one job took, the model being loaded and warm."""

    seconds: float
    embed_seconds: float
    chunks: int
    tokens: int
    """Of the chunks, by the model's tokenizer, without special tokens."""
    characters: int
    """Of the files, or of the chunks where those were given."""
    index_bytes: int
    """Of what was saved; 0 where nothing is."""


class Stopwatch:
    """Adds up the seconds spent inside a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return `function`, each call of which is counted."""

        def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return counted


class Peer(Protocol):
    """One pipeline, its model loaded; pieces are whatever it passes from splitter to index."""

    embedding: Stopwatch

    def split(self, files: Sequence[Path]) -> list[Any]:
        """Read and split files in the peer's own way."""
        ...

    def wrap(self, chunks: Sequence[str]) -> list[Any]:
        """Make pieces of chunks that were cut elsewhere."""
        ...

    def texts(self, pieces: list[Any]) -> list[str]: ...

    def index(self, pieces: list[Any], folder: Path) -> None:
        """Embed the pieces, index them and save what can be saved to `folder`."""
        ...


def serve(open_peer: Callable[[Job], Peer]) -> None:
    """Answer each job on standard input with a result, until the input ends."""
    peers: list[Peer] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        job = Job(**request)
        if not peers:
            peers.append(_warm(open_peer(job), job))
        return asdict(run(peers[0], job))

    answer_lines(answer)


def answer_lines(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each line of JSON on standard input with another, until the input ends."""
    answers = _claim_standard_output()
    os.environ.update(OFFLINE)
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def run(peer: Peer, job: Job) -> Result:
    """Do one job in a fresh folder and say what it took."""
    folder = Path(tempfile.mkdtemp(prefix="ragstone-peer-"))
    try:
        peer.embedding.seconds = 0.0
        start = time.perf_counter()
        pieces = peer.wrap(job.chunks) if job.chunks else peer.split([Path(f) for f in job.files])
        peer.index(pieces, folder)
        seconds = time.perf_counter() - start
        texts = peer.texts(pieces)
        sources = job.chunks or [Path(file).read_text(encoding="utf-8") for file in job.files]
        count = token_counter(job.model_path)
        return Result(
            seconds=seconds,
            embed_seconds=peer.embedding.seconds,
            chunks=len(texts),
            tokens=sum(count(text) for text in texts),
            characters=sum(len(text) for text in sources),
            index_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
    finally:
        shutil.rmtree(folder)


def token_counter(model_path: str) -> Callable[[str], int]:
    """Return a function that counts the model's tokens in a text, without special tokens."""
    tokenizer = open_tokenizer(model_path)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def open_tokenizer(model_path: str) -> Any:
    """Return the model's tokenizer, which reads a text to its end."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(model_path) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def set_threads(job: Job) -> None:
    """Give torch the job's number of threads."""
    import torch

    torch.set_num_threads(job.threads)


def _warm(peer: Peer, job: Job) -> Peer:
    """Run a few chunks of full length through, so that the first job pays for no lazy loading."""
    text = "The stone that the tower stands on was cut in Kent and carried down the river. "
    chunks = [f"{number} {text * 10}" for number in range(job.batch_size)]
    run(peer, Job(model_path=job.model_path, chunks=chunks))
    return peer


def _claim_standard_output() -> TextIO:
    """Keep the answers' channel to ourselves: what packages print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers
