"""What a benchmark is told: how much to do, with which embedder, where it may write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent.parent / ".venvs"


def _keep_quiet(_line: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Options:
    """One run's settings; every benchmark reads those it needs."""

    folder: Path
    """Scratch space, empty at the start and removed by the caller."""
    quick: bool = False
    """A slice that runs in seconds: it shows that the benchmark works, not how fast we are."""
    part: float = 1.0
    """How much of the corpus is ingested, for a machine that is slow or busy."""
    repeats: int = 5
    install_peers: bool = False
    peers: bool = True
    """False leaves the peers out even where they are installed."""
    environments: Path = ENVIRONMENTS
    """Where the peers' virtual environments stand."""
    embedder: str = "onnx"
    """A file of `retrieval/embedders/`."""
    data: Path | None = None
    """The folder of real datasets; None where there is none."""
    threads: int = 2
    """For the numeric libraries, ours and the peers' alike."""
    url: str | None = None
    """Of a real model server, for the benchmarks that can use one."""
    model: str | None = None
    """That it serves."""
    shape: str | None = None
    """Of a model with random weights: one of those that the benchmark knows."""
    requests: int | None = None
    """Of a soak; by default as many as its bar asks for."""
    say: Callable[[str], None] = _keep_quiet
    """Receives a line when a step starts."""
