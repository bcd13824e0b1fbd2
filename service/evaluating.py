"""Evaluates a suite with what this process serves: opens its target, runs it, keeps the results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evals import records, run, target
from evals.context import Context
from evals.evaluation import Evaluation
from evals.memory import Memory
from evals.run import Options, Plan
from evals.trial import Trial
from infra.errors import InvalidRequest, NotFound
from infra.plugins import load

if TYPE_CHECKING:
    from evals.suite import Suite
    from evals.target import Target
    from infra.artifacts.refs import Reference
    from service.wiring import Components

SERVED = "service.eval_targets"
JOURNALS = "evaluations"
CALLS = "evaluations/calls"
"""Folders within the data folder."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An evaluation of the store."""

    reference: Reference
    evaluation: Evaluation
    verdict: dict[str, Any]


def open_target(parts: Components, suite: Suite, folder: Path) -> Target:
    """Open what a suite evaluates; files are relative to `folder`.

    Raises:
        NotFound: there is no such collection, model or file.
        InvalidConfiguration: there is no such function, or a key is missing.
    """
    if target.is_own(suite):
        return target.open_target(suite.target, folder=folder)
    return cast("Target", load(SERVED, suite.target.kind)(suite.target, parts))


def plan(parts: Components, suite: Suite, folder: Path) -> Plan:
    """Resolve a suite; nothing is asked of its target. Raises as `open_target` and `run.plan`."""
    from infra.datasets.datasets import Datasets

    return run.plan(
        suite,
        folder=folder,
        target=open_target(parts, suite, folder),
        datasets=lambda: Datasets(parts.artifacts),
    )


async def carry_out(
    parts: Components, plan: Plan, *, resume: bool, on_trial: Callable[[Trial], None]
) -> Evaluation:
    """Run a plan and close its target. Raises as `run.run`."""
    context = Context(
        memory=Memory(parts.settings.data_folder / CALLS),
        read_text=parts.documents.read_text,
        embed=lambda texts: parts.embedder.embed(texts, kind="document"),
    )
    options = Options(journals(parts), resume, context, on_trial)
    try:
        return await run.run(plan, options)
    finally:
        await plan.target.close()


def journals(parts: Components) -> Path:
    """Return the folder of the runs under way."""
    return parts.settings.data_folder / JOURNALS


def find(parts: Components, reference: str) -> Stored:
    """Return an evaluation; a name without a kind means `evaluation/NAME`.

    Raises:
        NotFound: there is none of that name.
        InvalidRequest: the artifact is no evaluation.
        StorageFailed: it is damaged.
    """
    full = reference if "/" in reference.partition("@")[0] else f"{run.KIND}/{reference}"
    try:
        found = parts.artifacts.find(full)
    except NotFound as error:
        known = [f"{each.kind}/{each.name}" for each in parts.artifacts.names(run.KIND)]
        raise NotFound("evaluation", reference, among=known) from error
    if found.kind != run.KIND:
        raise InvalidRequest(f"{str(found)!r} is no evaluation; give one such as evaluation/faq@v1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = parts.artifacts.checkout(str(found), Path(scratch) / "files")
        evaluation, verdict = records.read(folder)
    return Stored(found, evaluation, verdict)
