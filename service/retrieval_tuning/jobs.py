"""Tuning of embedders and rerankers as jobs, which launch the program that trains and judges."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import InvalidRequest, NotFound
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Behaviour, Registry, Resources, Retries
from service.retrieval_tuning.forgetting import of_jobs
from service.work import launching

if TYPE_CHECKING:
    from service.wiring import Components
    from training.launchers import Spec as Program
    from training.retrieval_models.specification import Tuning

KINDS = ("embedder", "reranker")
LANE = "train_retrieval"
POLL_SECONDS = 0.5
WITHOUT_A_PASS = (1, 2)
"""Exit codes of a run that was judged, and did not pass or nobody is sure."""


def define(registered: Registry, parts: Components) -> None:
    """Register `train_embedder` and `train_reranker`; a trigger or a schedule starts them."""
    for kind in KINDS:
        _define(registered, parts, kind)


def _define(registered: Registry, parts: Components, kind: str) -> None:
    from training.launching import RunFailed

    # Not over HTTP: the file that it names says what is read.
    @registered.job(
        f"train_{kind}",
        resources=Resources(cpu=0.05),
        retries=Retries(permanent=(*Retries().permanent, RunFailed)),
        behaviour=Behaviour(detached=True, lane=LANE),
    )
    def train(attempt: Attempt, *, spec: str) -> dict[str, Any]:
        return _train(parts, attempt, Path(spec), kind)


def _train(parts: Components, attempt: Attempt, path: Path, kind: str) -> dict[str, Any]:
    """Launch a tuning and return its outcome, whatever the verdict is.

    A run that was asked to go, or whose machine is lost, is launched again and goes on.
    """
    from service.fine_tuning import running
    from training.launching import RunFailed, watch
    from training.retrieval_models import specification
    from training.run_folder import OUTCOME, read_json

    if not path.is_absolute():
        raise InvalidRequest(f"{str(path)!r} means another file in every folder; name all of it")
    asked = specification.read(path, kind)
    _sweep(parts)
    folder = (of_jobs(parts) / attempt.job_id).absolute()
    launcher = launching.open_launcher(parts, parts.settings.fine_tuning.launcher)
    program = _program(parts, asked, ["train", kind, str(path), "--folder", str(folder)])
    for number in range(running.RELAUNCHES + 1):
        try:
            key = f"{attempt.claim.workflow_id}/{number}"
            watch(attempt, launcher, program, poll_seconds=POLL_SECONDS, key=key)
            break
        except RunFailed as error:
            if error.status.exit_code in WITHOUT_A_PASS and (folder / OUTCOME).exists():
                break
            if number == running.RELAUNCHES or not running.goes_on(error):
                raise
            attempt.log(f"launched again: {error.message}", level="warning")
    outcome = read_json(folder / OUTCOME)
    if outcome is None:
        raise NotFound("outcome", str(folder / OUTCOME))
    return outcome


def _program(parts: Components, asked: Tuning, words: list[str]) -> Program:
    from service.fine_tuning import running
    from training.launchers import local

    launcher = parts.settings.fine_tuning.launcher
    is_anything_well = asked.device == "auto" and launcher == local.NAME
    has_gpu = asked.device != "cpu" and not (is_anything_well and not local.devices())
    return running.program_with(parts, words, name=asked.name, gpus=int(has_gpu))


def _sweep(parts: Components) -> None:
    """Remove what jobs left that the queue has forgotten."""
    for place in of_jobs(parts).glob("*"):
        try:
            parts.jobs.get(place.name)
        except NotFound:
            shutil.rmtree(place, ignore_errors=True)
