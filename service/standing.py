"""What the metrics tell of the state of things: drift, budgets, indexes, evaluations, GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from monitoring.standing_metrics import Reading

if TYPE_CHECKING:
    from service.wiring import Components

EVALUATIONS_KEPT_SECONDS = 30.0
"""Each is a file of the artifact store, which may be far away."""
MOST_SUITES = 100
MOST_SYNCS = 1000
"""The newest syncs that succeeded, among which that of each source is looked for."""
PASSED = "pass"
FAILED = ("fail", "inconclusive", "underpowered", "unscored", "infrastructure")
_SYNC = "sync"


def watch(parts: Components, *, clock: Callable[[], float] = time.time) -> None:
    """Have the metrics of this process tell it, whenever they are scraped; it begins now."""
    from monitoring.gpus import Gpus

    standing = parts.metrics.standing
    standing.watch("gpus", Gpus().readings)
    standing.watch("drift", partial(drift, parts, began=clock()))
    standing.watch("budgets", partial(budgets, parts))
    standing.watch("indexes", partial(indexes, parts))
    standing.watch("sources", partial(sources, parts))
    standing.watch(
        "evaluations", partial(evaluations, parts), kept_seconds=EVALUATIONS_KEPT_SECONDS
    )


def drift(parts: Components, *, began: float) -> Iterator[Reading]:
    """Yield what the watch found last, of the monitors of the settings.

    One that was never looked at is due since this process began, or nobody would hear of it.
    """
    from monitoring.watch_results import DUE, WatchResults

    names = tuple(parts.settings.watch.monitors)
    if not names:
        return
    yield from (Reading(DUE, (name,), began) for name in names)  # of two readings the last counts
    yield from WatchResults(parts.database).readings(names)


def budgets(parts: Components) -> Iterator[Reading]:
    """Yield, by holder and period, the share of the budget that has least left."""
    shares: dict[tuple[str, str], float] = {}
    for each in parts.budgets.standings():
        kind = each.budget.holder, each.budget.period
        share = each.spent / each.budget.amount if each.budget.amount else 1.0
        shares[kind] = max(share, shares.get(kind, 0.0))
    for labels, share in shares.items():
        yield Reading("ragstone_budget_spent_ratio", labels, share)


def indexes(parts: Components) -> Iterator[Reading]:
    """Yield how many sequences the views of this process are behind the log."""
    for view in parts.views.opened():
        lag = max(0, view.latest_sequence() - view.index.watermark)
        yield Reading("ragstone_index_lag_changes", (view.collection.name,), lag)


def sources(parts: Components) -> Iterator[Reading]:
    """Yield when each source that has a schedule has to be in step again."""
    from infra.jobs import cron

    schedules = [each for each in parts.jobs.schedules.list() if each.job == _SYNC]
    if not schedules:
        return
    synced: dict[str, datetime] = {}
    for job in parts.jobs.list(state="succeeded", name=_SYNC, limit=MOST_SYNCS):
        if job.finished_at is not None:
            synced.setdefault(str(job.arguments.get("source")), job.finished_at)
    known = {each.name: each.created_at for each in parts.sources.list()}
    for each in schedules:
        name = str((each.arguments or {}).get("source"))
        if each.paused or name not in known:
            continue
        after = max(known[name], synced.get(name, known[name]))
        due = next(cron.ticks(each.cron, each.time_zone, after=after))
        yield Reading("ragstone_source_due_timestamp_seconds", (name,), due.timestamp())


def evaluations(parts: Components) -> Iterator[Reading]:
    """Yield the newest evaluation of every suite: its verdict where it has gates, its time."""
    from evals.run import KIND

    store = parts.artifacts
    for newest in store.names(KIND)[:MOST_SUITES]:
        said = store.resolve(str(newest)).metadata.get(KIND, {})
        verdict = said.get("verdict")
        if verdict == PASSED or verdict in FAILED:
            yield Reading("ragstone_eval_passed", (newest.name,), float(verdict == PASSED))
        made = next(iter(store.versions(f"{newest.kind}/{newest.name}")), None)
        if made is not None:
            moment = made.created_at.timestamp()
            yield Reading("ragstone_eval_timestamp_seconds", (newest.name,), moment)
