"""Connects the training of classical models to this process: stores, diagnosis, pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.models.tuning import DIGITS

if TYPE_CHECKING:
    from service.wiring import Components
    from training.classical import Around
    from training.tabular.evaluation import Errors
    from training.tabular.searching import Progress
    from training.tabular.specification import Classical


def folder_of(parts: Components, spec: Classical) -> Path:
    """Return where the run of a specification is by default: the same for the same words."""
    digest = spec.digest.rpartition(":")[2][:DIGITS]
    return parts.settings.data_folder / "classical" / f"{spec.name}-{digest}"


def around(
    parts: Components,
    folder: Path,
    *,
    note: Callable[[str], None] = lambda _: None,
    tell: Callable[[Progress], None] = lambda _: None,
    parent: str | None = None,
) -> Around:
    """Return what a training in this process uses; paths are taken from `folder`."""
    from service import exploration_page
    from training.classical import Around

    return Around(
        folder,
        store=parts.artifacts,
        tracker=parts.tracker,
        tell=tell,
        note=note,
        diagnose=diagnose,
        page=exploration_page.write,
        parent=parent,
    )


def diagnose(errors: Errors) -> dict[str, Any]:
    """Take the error on rows held out apart, as `evals.diagnosis` does.

    Where those rows are later, what they lose beside the folds is shift; where they are of the same
    mixture, it is that the model was chosen by the folds.
    """
    from evals.diagnosis import Losses
    from evals.diagnosis import diagnose as take_apart

    folds, held = Losses(errors.out_of_fold), Losses(errors.held_out)
    found = take_apart(
        train=Losses(errors.trained_on),
        train_validation=folds,
        validation=held if errors.is_later else folds,
        test=held,
    )
    return {
        "summary": found.summary,
        "error": found.error.estimate,
        "parts": [
            {
                "source": part.source.value,
                "estimate": part.share.estimate,
                "low": part.share.low,
                "high": part.share.high,
                "is_sure": part.is_sure,
            }
            for part in found.parts
        ],
    }
