"""Where a specification finds what it names: its folder, the store, models that are laid out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.artifacts.store import ArtifactStore
from infra.datasets.datasets import Datasets
from training.judging import Look
from training.preflight import Served
from training.spec import FineTuning


@dataclass(frozen=True, slots=True)
class Places:
    """Where named things are looked for."""

    folder: Path
    """Paths of the specification are taken from here."""
    store: ArtifactStore | None
    datasets: Datasets | None
    checkout: Callable[[str], Path]
    """Lays an artifact out and returns its folder."""
    suites: Look | None = None
    """Finds the suites that are to be asked, and what is wrong with them; None where none can be
    asked."""
    served: Callable[[FineTuning], Served | None] = lambda _: None
    """Tells what is known of the server that is to host the adapter."""
