"""Forgets what interrupted tunings quote of documents, once documents of theirs are gone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from service.wiring import Components

FOLDER = "tuning"
"""Below the data folder, where runs are unless another place was named."""


def of_jobs(parts: Components) -> Path:
    """Return where the runs of jobs are, each in the folder of its job."""
    return parts.settings.data_folder / FOLDER / "jobs"


def forget(parts: Components) -> int:
    """Remove questions, passages and checkpoints of runs whose collection is not what it was.

    Such a run cannot go on anyway. Returns how many there were.
    """
    from training.retrieval_models import tuning
    from training.run_folder import LOCK, RunFolder, read_json

    done = 0
    places = parts.settings.data_folder / FOLDER, of_jobs(parts)
    for files in [RunFolder(each) for place in places for each in place.glob("*")]:
        # One that was under way when it was forgotten has written checkpoints since.
        if not (files.checkpoints.is_dir() or (files.path / tuning.MATERIAL).is_file()):
            continue
        if not _is_of_now(parts, read_json(files.path / LOCK) or {}):
            tuning.forget(files)
            done += 1
    return done


def _is_of_now(parts: Components, lock: Mapping[str, Any]) -> bool:
    """Tell whether the collection holds what it held when a run began."""
    from service.retrieval_tuning.corpus import open_corpus
    from training.retrieval_models import specification

    # What cannot be read, or whose collection is gone, is not of now.
    with suppress(NotFound, InvalidRequest, KeyError):
        spec = specification.parse(lock["spec"], lock["kind"])
        began: str = lock["digests"]["data.collection"]
        return open_corpus(parts, spec).digest == began
    return False
