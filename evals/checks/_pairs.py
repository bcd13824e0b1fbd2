"""Live and candidate answers to the same, from evaluations, columns or interactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evals.evaluation import Evaluation
from evals.metrics._answers import label, said, squad
from evals.metrics.token_f1 import f1
from evals.refusals import is_refusal
from evals.suite import ALL
from evals.trial import Case, Output
from infra.contracts import Interaction

Number = float | None


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


def agree(pair: Pair, *, same_from: float) -> bool:
    """Whether both say the same: the same label, both nothing, or texts of mostly the same words.

    Args:
        pair: both.
        same_from: the token F1 from which texts are the same.
    """
    live, candidate = pair.live.output, pair.candidate.output
    if live is None or candidate is None:
        return live is candidate
    if is_refusal(live) or is_refusal(candidate):
        return is_refusal(live) and is_refusal(candidate)
    if live.prediction is not None or candidate.prediction is not None:
        return bool(label(live.prediction) == label(candidate.prediction))
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
    """Return the calls that both targets of a route answered: copies share the request's id."""
    seen: dict[str, dict[str, Interaction]] = {}
    pairs: list[Pair] = []
    for item in interactions:
        if item.request_id is None or item.tag not in (live, candidate):
            continue
        both = seen.setdefault(item.request_id, {})
        both.setdefault(item.tag, item)
        if len(both) == 2:
            # One caller's questions are alike; a key is the nearest thing to a caller.
            group = item.key_id or item.request_id
            sides = (_side(both[live]), _side(both[candidate]))
            pairs.append(Pair(item.request_id, group, *sides))
            del seen[item.request_id]
            if len(pairs) == most:
                break
    return pairs


def has_texts(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs of which something is kept that can be compared."""
    return [
        pair
        for pair in pairs
        if all(side.output is None or side.output.raw.get("kept", True) for side in _sides(pair))
    ]


def _sides(pair: Pair) -> tuple[Side, Side]:
    return pair.live, pair.candidate


def _side(item: Interaction) -> Side:
    has_failed = item.outcome in {"failed", "cancelled"}
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
