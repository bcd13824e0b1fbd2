"""Connects fine-tuning to this process: its stores and tracker, and where runs keep their files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import Conflict, NotFound

if TYPE_CHECKING:
    from service.wiring import Components
    from training.finetune import Around
    from training.places import Places
    from training.preflight import Served
    from training.spec import FineTuning

DIGITS = 12
"""Of the digest of a specification, in the name of its run's folder."""


def folder_of(parts: Components, spec: FineTuning) -> Path:
    """Return where the run of a specification is by default: the same where the same is learned.

    So a run that broke off on eight devices is gone on with on four.
    """
    digest = spec.learning_digest.rpartition(":")[2][:DIGITS]
    return parts.settings.data_folder / "tuning" / f"{spec.name}-{digest}"


def places(parts: Components, folder: Path) -> Places:
    """Return where a specification in a folder finds what it names."""
    from infra.datasets.datasets import Datasets
    from service.models import tuned_suites
    from training.places import Places

    return Places(
        folder,
        parts.artifacts,
        Datasets(parts.artifacts),
        lambda name: checkout(parts, name),
        suites=lambda spec, base: tuned_suites.look(parts, spec, folder, base),
        served=lambda spec: _served(parts, spec),
    )


def around(parts: Components, folder: Path, *, note: Callable[[str], None]) -> Around:
    """Return what a run in this process uses."""
    from service.models import tuned_suites
    from training.finetune import Around

    return Around(
        places(parts, folder),
        tracker=parts.tracker,
        note=note,
        judge=lambda spec, tuned: tuned_suites.judge(parts, spec, tuned, folder, note=note),
    )


def checkout(parts: Components, reference: str) -> Path:
    """Lay a model out below the data folder, once for each of its versions."""
    found = parts.artifacts.find(reference)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", found.name)
    place = parts.settings.data_folder / "models" / f"{name}@{found.digest.rpartition(':')[2]}"
    if not place.is_dir():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            parts.artifacts.checkout(found.pinned, place)
        except Conflict:  # another process was faster, and lays out all files or none
            if not place.is_dir():
                raise
    return place


def _served(parts: Components, spec: FineTuning) -> Served | None:
    """Return what the settings say of the server that is to host an adapter.

    A machine that only trains has no engines in its settings, and says nothing of it.

    Raises:
        NotFound: there are others, and no such engine.
    """
    from training.preflight import Served

    engines = parts.settings.engines
    if spec.serve is None or spec.serve.upstream is None or not engines:
        return None
    engine = engines.get(spec.serve.upstream)
    if engine is None:
        raise NotFound("engine", spec.serve.upstream, among=engines, are_few=True)
    return Served(engine.max_lora_rank if engine.lora else None, engine.model_digest)
