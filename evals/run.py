"""Verdict out: resolve the cases, plan, run the trials, keep what was found as an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from evals import cases, check, execution, problems, records, robustness, suite_gates
from evals.cases import Cases
from evals.context import Context
from evals.evaluation import Described, Evaluation, MeasuredBy
from evals.execution import Finished, Work
from evals.journal import Journal
from evals.metric import Metric, SetMetric, is_of_set, open_metric
from evals.suite import Suite, deciding
from evals.target import Target
from evals.trial import Case, Trial
from infra.artifacts.files import storage_errors
from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.errors import InvalidRequest

KIND = "evaluation"


def _unheard(_trial: Trial) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite with its cases read, its metrics built and its target open."""

    suite: Suite
    cases: Cases
    target: Target
    metrics: Mapping[str, Metric | SetMetric]
    described: Described
    calls: Path | None = None
    """The folder that the suite keeps its judges' answers in."""
    parents: Sequence[tuple[str, str]] = ()
    """`(role, reference)` of what the verdict will rest on, beside the target and the dataset."""

    @property
    def trials(self) -> int:
        return len(self.cases.asked) * self.suite.repeats


@dataclass(frozen=True, slots=True)
class Options:
    """How a plan is carried out."""

    folder: Path
    """Where the journals of runs under way are kept."""
    resume: bool = False
    """Whether to go on where a run of the same that was killed had come to."""
    context: Context = field(default_factory=Context)
    on_trial: Finished = _unheard
    """Told of each trial, also of those an earlier run had finished."""


def plan(
    suite: Suite,
    *,
    folder: Path,
    target: Target,
    datasets: Callable[[], cases.Rows],
    embedder: Callable[[], str] = str,
    settle: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Plan:
    """Read the cases and build the metrics; nothing is asked of the target.

    Args:
        suite: what is to be run.
        folder: of the suite's file; paths are relative to it.
        target: what is evaluated.
        datasets: opens the artifact store, where it is needed.
        embedder: gives the identity of the one that metrics are handed.
        settle: puts things in place of their names among a metric's parameters.

    Raises:
        NotFound: there is no such file or dataset.
        InvalidRequest: a case, a parameter or a gate is wrong; names it.
    """
    found = cases.load(suite, folder=folder, datasets=datasets)
    copies = robustness.expand(suite, found.cases)
    found = replace(found, copies=copies.cases, copies_digest=copies.digest, skipped=copies.skipped)
    given = {use.name: settle(use.parameters) for use in suite.metrics}
    metrics = {
        use.name: open_metric(use.metric, given[use.name], label=use.name) for use in suite.metrics
    }
    check.require_all(_settled(suite, given))
    _check_read(metrics)
    by = {
        use.name: MeasuredBy.of(
            metrics[use.name],
            name=use.metric,
            parameters=deciding(given[use.name]),
            embedder=embedder,
        )
        for use in suite.metrics
    }
    suite_gates.require_sound(suite, by)
    described = Described(
        suite, suite.digest, found.source, found.digest, target.identity, by, found.copies_digest
    )
    calls = None if suite.calls is None else folder / suite.calls
    return Plan(suite, found, target, metrics, described, calls)


async def run(plan: Plan, options: Options) -> Evaluation:
    """Carry a plan out.

    No failing target or metric is raised; it is counted. A run that is killed is continued by the
    same call with `resume`, which repeats no finished trial; of one whose judge was out of order it
    makes the scores that are missing.

    Raises:
        Conflict: another process carries the same plan out.
        StorageFailed: the journal cannot be written.
    """
    of_cases = {
        name: cast("Metric", each) for name, each in plan.metrics.items() if not is_of_set(each)
    }
    planned = [(case, repeat) for case in plan.cases.asked for repeat in range(plan.suite.repeats)]
    with Journal(journal_of(plan, options.folder), resume=options.resume) as journal:
        found = _found(journal, planned)
        done = {key: trial for key, trial in found.items() if trial.is_finished}
        for trial in done.values():
            options.on_trial(trial)
        begun = {key: trial for key, trial in found.items() if key not in done}
        work = Work(plan.suite, plan.target, of_cases, options.context, begun)

        def note(trial: Trial) -> None:
            with storage_errors("write the journal of an evaluation"):
                journal.add(trial.key, records.pack(trial))
            options.on_trial(trial)

        left = [(case, repeat) for case, repeat in planned if (case.id, repeat) not in done]
        for trial in await execution.run_trials(work, left, on_trial=note):
            done[trial.key] = trial
    return Evaluation(plan.described, tuple(done[case.id, repeat] for case, repeat in planned))


def publish(
    plan: Plan,
    evaluation: Evaluation,
    verdict: Mapping[str, Any],
    *,
    store: ArtifactStore,
    baseline: str | None = None,
) -> Reference:
    """Keep an evaluation as the next version of `evaluation/NAME`, with what it was made from."""
    parents = [*plan.target.parents, *plan.parents]
    if plan.cases.artifact is not None:
        parents.append(("dataset", plan.cases.artifact))
    if baseline is not None:
        parents.append(("baseline", baseline))
    described = evaluation.described
    metadata = {
        "suite": described.suite.name,
        "verdict": verdict["verdict"],
        "dataset": described.dataset,
        "target": dict(described.target),
        "digest": described.digest,
        "trials": len(evaluation.trials),
        "failures": evaluation.failures,
    }
    name = f"{KIND}/{described.suite.name}"
    with store.writer(name, Made(metadata={KIND: metadata}, parents=parents)) as draft:
        records.write(evaluation, verdict, draft.folder)
    return store.find(str(draft.reference))


def finish(plan: Plan, evaluation: Evaluation, folder: Path) -> None:
    """Remove the journal of a run whose every trial is finished; the others can be resumed."""
    if all(trial.is_finished for trial in evaluation.trials):
        journal_of(plan, folder).unlink(missing_ok=True)


def journal_of(plan: Plan, folder: Path) -> Path:
    """Return where the journal of a plan is: another target or dataset has another."""
    digest = plan.described.digest.removeprefix("sha256:")
    return folder / f"{plan.suite.name}-{digest[:16]}.jsonl"


def _settled(suite: Suite, given: Mapping[str, Mapping[str, Any]]) -> Suite:
    """Return a suite with the parameters that its metrics were built of."""
    uses = [use.model_copy(update={"parameters": dict(given[use.name])}) for use in suite.metrics]
    return suite.model_copy(update={"metrics": tuple(uses)})


def _found(journal: Journal, planned: list[tuple[Case, int]]) -> dict[tuple[str, int], Trial]:
    """Return the trials that have an output; one whose target failed is tried again."""
    found = {}
    for case, repeat in planned:
        row = journal.found.get((case.id, repeat))
        if row is not None and row["output"] is not None:
            found[case.id, repeat] = records.restore(case, row)
    return found


def _check_read(metrics: Mapping[str, Metric | SetMetric]) -> None:
    """See that what metrics read of each other is there. Raises `InvalidRequest`."""
    for name, metric in metrics.items():
        for read in getattr(metric, "reads", ()):
            found = metrics.get(read)
            if found is None or is_of_set(found):
                cases = [each for each, other in metrics.items() if not is_of_set(other)]
                words = problems.unknown("metric of cases", read, cases)
                raise InvalidRequest(f"Metric {name!r}: {words}")
            if found.bounds != (0.0, 1.0) or not found.higher_is_better:
                raise InvalidRequest(
                    f"Metric {name!r} reads {read!r}, which is not from 0 to 1 with 1 the best"
                )
