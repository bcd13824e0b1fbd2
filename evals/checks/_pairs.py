"""Live and candidate answers to the same, from evaluations, columns or interactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evals.evaluation import Evaluation
from evals.metrics._answers import said, squad
from evals.metrics.token_f1 import f1
from evals.refusals import is_refusal, is_silent
from evals.suite import ALL
from evals.trial import Case, Output
from infra.contracts import Interaction

Number = float | None
_Request = tuple[str, str, str]
"""Tenant, key, and the id that the caller gave; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two said, and what can be counted of it."""

    output: Output | None
    """None where it failed."""
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """Both answers to one thing that was asked."""

    id: str
    cluster: str
    live: Side
    candidate: Side


def agree(pair: Pair, *, same_from: float) -> bool | None:
    """Whether both say the same: the same label, both refuse, or texts of mostly the same words.

    None where there is nothing to compare: both failed, both are empty, or a text is not kept.

    Args:
        pair: both.
        same_from: the token F1 from which texts are the same.
    """
    outputs = [each.output for each in (pair.live, pair.candidate) if each.output is not None]
    if all(is_silent(each) for each in outputs):
        # One that failed beside one that is empty are no answers either.
        return None
    if not all(each.raw.get("kept", True) for each in outputs):
        return None
    live, candidate = pair.live.output, pair.candidate.output
    if live is None or candidate is None:
        return False
    if is_refusal(live) or is_refusal(candidate):
        return is_refusal(live) and is_refusal(candidate)
    if live.prediction is not None or candidate.prediction is not None:
        return bool(live.label == candidate.label)
    return f1(squad(said(live)), squad(said(candidate))) >= same_from


def of_evaluations(live: Evaluation, candidate: Evaluation) -> list[Pair]:
    """Return the cases that both ran, by their first repeat, with the metrics that both have."""
    before = {trial.case.id: trial for trial in live.members(ALL) if trial.repeat == 0}
    pairs = []
    for trial in candidate.members(ALL):
        other = before.get(trial.case.id)
        if other is None or trial.repeat:
            continue
        sides = [
            Side(each.output, {name: score.value for name, score in each.scores.items()})
            for each in (other, trial)
        ]
        pairs.append(Pair(trial.case.id, trial.case.cluster, *sides))
    return pairs


def of_column(candidate: Evaluation, column: str) -> list[Pair]:
    """Return the cases whose column holds what was said live."""
    return [
        Pair(
            trial.case.id,
            trial.case.cluster,
            Side(_told(trial.case, column)),
            Side(trial.output),
        )
        for trial in candidate.members(ALL)
        if trial.repeat == 0 and trial.case.metadata.get(column) is not None
    ]


def of_interactions(
    interactions: Iterable[Interaction], *, live: str, candidate: str, most: int
) -> list[Pair]:
    """Return the calls that both targets of a route answered: copies share the request's id.

    Callers choose the ids of requests: one is of its key and tenant alone, and where a key gave
    the same id again, nobody knows which copy is of which call. Calls whose caller left say nothing
    of a target. Both are left out.
    """
    seen: dict[_Request, dict[str, Side]] = {}
    twice: set[_Request] = set()
    complete = 0
    for item in interactions:
        is_of_both = item.request_id is not None and item.tag in (live, candidate)
        if not is_of_both or item.outcome == "cancelled":
            continue
        request = (item.tenant or "", item.key_id or "", item.request_id or "")
        both = seen.setdefault(request, {})
        if item.tag in both:
            twice.add(request)
        both.setdefault(item.tag, _side(item))
        complete += len(both) == 2
        if complete == most:
            break
    return [
        # One caller's questions are alike; a key is the nearest thing to a caller.
        Pair(" ".join(filter(None, request)), request[1] or request[2], both[live], both[candidate])
        for request, both in seen.items()
        if len(both) == 2 and request not in twice
    ]


def _side(item: Interaction) -> Side:
    has_failed = item.outcome == "failed"
    numbers: dict[str, Number] = {
        "seconds": None if has_failed else item.seconds,
        "tokens": None if has_failed else float(item.usage.completion_tokens),
        "cost": None if has_failed else item.cost_nano / 1e9,
        "failed": float(has_failed),
    }
    if has_failed:
        return Side(None, numbers)
    content = item.content
    text = str((content or {}).get("answer") or "")
    raw = {"kept": content is not None}
    return Side(Output(text, item.outcome != "abstained", raw=raw), numbers)


def _told(case: Case, column: str) -> Output:
    held = case.metadata[column]
    return Output(held) if isinstance(held, str) else Output(prediction=held)
