"""Connects sweeps to this process: its launchers and stores, and where sweeps keep their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from service.models import tuning
from service.work import launching

if TYPE_CHECKING:
    from service.wiring import Components
    from training.lengths import Lengths
    from training.planning import Plan
    from training.spec import FineTuning
    from training.sweeps.sweep import Around, Told


def folder_of(parts: Components, spec: FineTuning) -> Path:
    """Return where a sweep is by default: the same for the same words, whatever its length."""
    from training.sweeps.study import identity

    digest = identity(spec).rpartition(":")[2][: tuning.DIGITS]
    return parts.settings.data_folder / "sweeps" / f"{spec.name}-{digest}"


def around(
    parts: Components, spec: FineTuning, beside: Path, *, tell: Callable[[Told], None]
) -> Around:
    """Return what a sweep in this process uses; paths of the specification are taken `beside`."""
    from training import planning
    from training.sweeps.runs import Machinery
    from training.sweeps.sweep import Around

    def plan(asked: FineTuning, known: Mapping[str, Lengths] | None) -> Plan:
        return planning.plan(
            asked,
            tuning.places(parts, beside),
            reading=planning.Reading(known=known),
        )

    machinery = Machinery(
        launching.open_launcher(parts, spec.runtime.launcher),
        program=launching.ragstone(spec.runtime.launcher),
        working_folder=Path.cwd(),
        secrets=launching.own_variables(),
    )
    return Around(plan, machinery, tell=tell)
