"""Retrains adapters on what people corrected, as a command or as a job that launches it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from monitoring import corrections
from service.work import launching

if TYPE_CHECKING:
    from service.wiring import Components
    from training.launchers import Spec as Program
    from training.retrained import Result

RETRAIN = "retrain_adapter"
POLL_SECONDS = 0.5
OUTCOME = "outcome.json"


def define(registered: Registry, parts: Components) -> None:
    """Register the job that retrains an adapter; a monitor's trigger or a schedule starts it."""
    from training.launching import RunFailed, watch

    # Not over HTTP: the file that it names says what is read.
    @registered.job(
        RETRAIN,
        resources=Resources(cpu=0.05),
        retries=Retries(permanent=(*Retries().permanent, RunFailed)),
        behaviour=Behaviour(detached=True, lane=RETRAIN),
    )
    def retrain(attempt: Attempt, *, spec: str, evidence: str | None = None) -> dict[str, Any]:
        if not Path(spec).is_absolute():
            raise InvalidRequest(f"{spec!r} means another file in every folder; name all of it")
        if evidence is not None:
            parts.artifacts.find(evidence)
        folder = (parts.settings.data_folder / "retraining" / attempt.job_id).absolute()
        launcher = launching.open_launcher(parts, parts.settings.fine_tuning.launcher)
        program = _program(parts, spec, evidence, folder / OUTCOME)
        watch(attempt, launcher, program, poll_seconds=POLL_SECONDS)
        outcome: dict[str, Any] = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        return outcome


def run(
    parts: Components,
    file: Path,
    *,
    cause: Mapping[str, Any] | None = None,
    note: Callable[[str], None] = lambda _: None,
    smokes: bool = True,
) -> Result:
    """Carry out, in this process, the retraining that a YAML file asks for.

    Raises:
        NotFound, InvalidRequest: as `training.continual.retrain`; or nobody said what is right.
        Conflict: an alias moved meanwhile.
    """
    from service.models import model_gates, tuning
    from training import continual

    asked = continual.read(file)
    if (evidence := (cause or {}).get("evidence")) is not None:
        parts.artifacts.find(evidence)
    said = None
    if asked.log.model is not None:
        parts.interactions.flush()
        found = corrections.read(
            parts.database, asked.log.model, tenant=asked.log.tenant, most=continual.MOST_ROWS
        )
        if not found:
            raise InvalidRequest(
                f"Nobody said what is right of what {asked.log.model!r} answered, or nothing is "
                "kept of it; set telemetry.content = true, or name rows in log.rows"
            )
        said = [{"messages": each} for each in found]
    around = replace(tuning.around(parts, file.absolute().parent, note=note), smokes=smokes)
    return continual.retrain(asked, said, around, model_gates.judge, cause=cause)


def _program(parts: Components, spec: str, evidence: str | None, outcome: Path) -> Program:
    from service.fine_tuning import running
    from training import continual

    file = Path(spec)
    words = ["train", "retrain", spec, "--outcome", str(outcome)]
    words += [] if evidence is None else ["--evidence", evidence]
    words += [] if parts.settings.fine_tuning.smoke else ["--no-smoke"]
    tuned = continual.fine_tuning(continual.read(file), file.parent)
    return running.program_of(parts, words, spec=tuned)
