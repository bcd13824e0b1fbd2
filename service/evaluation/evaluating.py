"""Evaluates a suite with what this process serves: opens its target, runs it, keeps the results."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evals import check, records, run, suite_gates, target, verdicts
from evals.context import Context
from evals.evaluation import Evaluation
from evals.judges.standing import require_standing
from evals.memory import Memory
from evals.run import Options, Plan
from evals.suite import ALL
from evals.trial import Trial
from evals.verdicts import Judgement, judge
from infra.errors import InvalidRequest, NotFound
from infra.plugins import load
from service.evaluation import judge_cards, rubrics
from service.evaluation.judge_servers import JudgeServers

if TYPE_CHECKING:
    from evals.judges.card import Card
    from evals.judges.instrument import Instrument
    from evals.suite import Suite
    from evals.target import Target
    from infra.artifacts.refs import Reference
    from service.wiring import Components

SERVED = "service.evaluation.targets"
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


def plan(
    parts: Components,
    suite: Suite,
    folder: Path,
    before: Stored | None = None,
    *,
    target: Target | None = None,
) -> Plan:
    """Resolve a suite; nothing is asked of its target. Raises as `open_target` and `run.plan`.

    Args:
        parts: of this process.
        suite: what is to be run.
        folder: of the suite's file.
        before: what it is compared with.
        target: what is asked instead of what the suite names.

    Raises:
        IncomparableBaseline: `before` is of other cases or versions.
        UnprovenJudge: a gate rests on a judge that nobody has held against people.
    """
    from infra.datasets.datasets import Datasets

    baseline = "" if before is None else before.reference.digest
    found = run.plan(
        suite,
        folder=folder,
        target=target or open_target(parts, suite, folder),
        datasets=lambda: Datasets(parts.artifacts),
        embedder=lambda: parts.embedder.identity,
        settle=rubrics.sources(parts.artifacts, folder, baseline=baseline).settle,
    )
    if before is not None:
        verdicts.require_comparable(found.described, before.evaluation.described)
    return replace(found, parents=_cards(parts, found))


async def carry_out(
    parts: Components,
    plan: Plan,
    *,
    resume: bool,
    on_trial: Callable[[Trial], None],
    before: Stored | None = None,
    is_offline: bool = False,
) -> Evaluation:
    """Run a plan and close its target. Raises as `opened_context` and `run.run`."""
    async with opened_context(parts, plan, before, is_offline=is_offline) as context:
        return await run.run(plan, Options(journals(parts), resume, context, on_trial))


async def ask(
    parts: Components,
    suite: Suite,
    folder: Path,
    *,
    target: Target,
    before: Stored | None = None,
) -> tuple[Stored, Judgement]:
    """Ask a target a suite and keep what came out; goes on where a killed run had come to."""
    planned = plan(parts, suite, folder, before, target=target)
    evaluation = await carry_out(
        parts, planned, resume=True, on_trial=lambda _: None, before=before
    )
    judgement, stored = conclude(parts, planned, evaluation, before, folder=folder)
    return Stored(stored, evaluation, judgement.as_dict()), judgement


@asynccontextmanager
async def opened_context(
    parts: Components, plan: Plan, before: Stored | None = None, *, is_offline: bool = False
) -> AsyncIterator[Context]:
    """Yield what metrics are given here; at the end judges' connections and the target close.

    Raises:
        InvalidRequest: nothing may be called, and no answer of a judge is kept that is needed.
    """
    servers = JudgeServers()
    trials = () if before is None else before.evaluation.trials
    try:
        yield Context(
            memory=_memory(parts, plan, is_offline=is_offline),
            ask=servers,
            read_text=parts.documents.read_text,
            embed=lambda texts: parts.embedder.embed(texts, kind="document"),
            baseline={
                each.case.id: each.output
                for each in trials
                if each.output is not None and each.repeat == 0
            },
        )
    finally:
        await servers.close()
        await plan.target.close()


def _memory(parts: Components, plan: Plan, *, is_offline: bool) -> Memory:
    folder = plan.calls or parts.settings.data_folder / CALLS
    memory = Memory(folder, is_offline=is_offline)
    asking = [name for name, each in plan.metrics.items() if getattr(each, "asks_server", False)]
    if is_offline and asking and memory.is_empty:
        raise InvalidRequest(
            f"Metrics ask a judge ({', '.join(asking)}), and {str(folder)!r} keeps no answer of "
            "one; run the suite once without --offline"
        )
    return memory


def conclude(
    parts: Components,
    plan: Plan,
    evaluation: Evaluation,
    before: Stored | None,
    *,
    folder: Path,
) -> tuple[Judgement, Reference]:
    """Carry out the checks of a suite, hold its gates against an evaluation, and keep all of it.

    Args:
        parts: of this process.
        plan: that was carried out.
        evaluation: that it gave.
        before: what it is compared with.
        folder: of the suite's file, to which files of checks are relative.

    Raises:
        IncomparableBaseline: what it is compared with is of other cases or versions.
        StorageFailed: the disk is full; the journal stays, so that nothing has to run again.
    """
    name = None if before is None else str(before.reference)
    findings = check.carry_out(_subject(parts, evaluation, folder))
    against = None if before is None else before.evaluation
    judgement = judge(evaluation, against, name=name, findings=findings)
    stored = run.publish(
        plan, evaluation, judgement.as_dict(), store=parts.artifacts, baseline=name
    )
    run.finish(plan, evaluation, journals(parts))
    return judgement, stored


def _subject(parts: Components, evaluation: Evaluation, folder: Path) -> check.Subject:
    from infra.expectations import records as expectation_records
    from service.evaluation.test_sets import interactions_of

    def checked(dataset: str) -> check.Checked:
        reference = parts.artifacts.find(dataset)
        results = expectation_records.every(parts.database, reference.digest)
        return check.Checked(str(reference), reference.digest, results)

    return check.Subject(
        evaluation,
        folder,
        datetime.now(UTC),
        find_evaluation=lambda reference: find(parts, reference).evaluation,
        find_checked=checked,
        find_interactions=lambda model, since: interactions_of(parts, model, since),
    )


def _cards(parts: Components, plan: Plan) -> list[tuple[str, str]]:
    """Return the cards of the judges that decide gates, with the role that they have."""
    found: dict[str, Reference] = {}

    def find(instrument: Instrument) -> Card | None:
        stored = judge_cards.find(parts.artifacts, instrument)
        if stored is None:
            return None
        found[instrument.digest] = stored[1]
        return stored[0]

    require_standing(plan.suite, plan.metrics, find)
    return [("judge", str(each)) for each in found.values()]


def summary(evaluation: Evaluation, judgement: Judgement) -> dict[str, Any]:
    """Return JSON values for a program that decides."""
    return {
        **judgement.as_dict(),
        "trials": len(evaluation.trials),
        "failures": evaluation.failures,
        "metrics": [*evaluation.summary(measured=False), *evaluation.summary(measured=True)],
    }


def described(found: Stored) -> dict[str, Any]:
    """Return what `summary` does of an evaluation that is stored."""
    evaluation = found.evaluation
    return {
        **found.verdict,
        "trials": len(evaluation.trials),
        "failures": evaluation.failures,
        "metrics": [*evaluation.summary(measured=False), *evaluation.summary(measured=True)],
    }


def members(plan: Plan) -> dict[str, int]:
    """Return how many cases each slice has."""
    return {name: len(clusters) for name, clusters in _clusters(plan).items()}


def shortages(plan: Plan) -> list[str]:
    """Return in words which gates have too few cases for their power."""
    sizes = {
        name: list(Counter(clusters.values()).values())
        for name, clusters in _clusters(plan).items()
    }
    return suite_gates.shortages(plan.suite, plan.described.metrics, sizes)


def _clusters(plan: Plan) -> dict[str, dict[str, str]]:
    """Return the cases of each slice, with the cluster of each.

    Several copies of a case count once, as its repeats do.
    """
    return {
        name: {
            one.original or one.id: one.cluster
            for one in plan.cases.asked
            if name in one.slices or (name == ALL and not one.original)
        }
        for name in plan.suite.slice_names
    }


def remarks(plan: Plan) -> list[str]:
    """Return in words what whoever runs a plan should know beforehand."""
    left_out = plan.cases.left_out
    words = [f"{left_out} cases are left out: nobody has accepted them"] if left_out else []
    return [*words, *without_copies(plan)]


def without_copies(plan: Plan) -> list[str]:
    """Return in words how many cases each perturbation could not change, and why."""
    counts = Counter((name, reason) for _, name, reason in plan.cases.skipped)
    return [
        f"{name} changes {count} cases not: {reason}" for (name, reason), count in counts.items()
    ]


def listed(parts: Components, name: str | None) -> list[dict[str, Any]]:
    """Return all versions of evaluations, newest first.

    Raises:
        NotFound: no evaluation has this name.
    """
    store = parts.artifacts
    known = [f"{each.kind}/{each.name}" for each in store.names(run.KIND)]
    if name is not None:
        wanted = name if "/" in name else f"{run.KIND}/{name}"
        if wanted not in known:
            raise NotFound("evaluation", name, among=known)
        known = [wanted]
    rows = []
    for each in (version for full in known for version in store.versions(full)):
        said = store.resolve(str(each.reference)).metadata.get(run.KIND, {})
        rows.append(
            {
                "evaluation": str(each.reference),
                **{key: said.get(key) for key in ("verdict", "trials", "failures", "dataset")},
                "made": f"{each.created_at:%Y-%m-%d %H:%M}",
                "aliases": ", ".join(each.aliases),
            }
        )
    return sorted(rows, key=lambda row: str(row["made"]), reverse=True)


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
