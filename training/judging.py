"""What suites and rows held out say of a tuned model; who can ask suites is handed to training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from infra.errors import InvalidRequest
from training.base_model import BaseModel
from training.problems import Problem
from training.sentinel import Aborted
from training.spec import FineTuning

PASS = "pass"
UNJUDGED = ("infrastructure", "unscored")
"""Verdicts that say nothing of the model: asked again, it may have another."""


class Unjudged(Aborted):
    """Too much could not be asked for a verdict; nothing is registered."""


class NotPassed(Aborted):
    """Suites were asked, and did not surely pass; nothing is registered."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What waits for its verdict: an adapter, or a whole model."""

    base: BaseModel
    """That it is held against."""
    folder: Path
    is_whole: bool = False
    made_from: str | None = None
    """Digest of the adapter in a whole model: it may be what the model is held against."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all suites say together."""

    verdict: str
    """`pass`, or the worst of what their gates say."""
    reason: str = ""
    """Of anything but a pass, in a line."""
    gates: Sequence[Mapping[str, Any]] = ()
    """Each with what it demanded and found, as JSON."""
    evaluations: Sequence[tuple[str, str]] = ()
    """Versions in the store, each with its role: `evaluation` of the tuned model, `against` of what
    it was held against."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is wrong with suites, and what else to know, before anything is trained."""

    problems: Sequence[Problem] = ()
    notes: Sequence[str] = field(default=())


Look: TypeAlias = Callable[[FineTuning, BaseModel | None], Looked]
Judge: TypeAlias = Callable[[FineTuning, Tuned], Verdict]


def require_pass(found: Verdict | None, what: str) -> None:
    """Raise `NotPassed` for any verdict but a pass."""
    if found is not None and found.verdict != PASS:
        raise NotPassed(
            f"{what} is not registered, the verdict of its suites is {found.verdict}: "
            f"{found.reason}"
        )


def has_suites(spec: FineTuning) -> bool:
    """Whether anything is to be asked of the tuned model."""
    return bool(spec.evaluate.suites or spec.evaluate.regressions)


def require_no_loss(spec: FineTuning, before: float | None, after: float | None) -> None:
    """Hold the loss on `data.eval` after training against that before, where there are both.

    Raises:
        Aborted: it grew by more than `evaluate.max_eval_loss_ratio` allows.
    """
    ratio = spec.evaluate.max_eval_loss_ratio
    if ratio is None or before is None or after is None:
        return
    if not after <= ratio * before:
        raise Aborted(
            f"The loss on data.eval is {after:.4g} after and {before:.4g} before training, and "
            f"evaluate.max_eval_loss_ratio is {ratio:g}; nothing is registered"
        )


def judged(spec: FineTuning, tuned: Tuned, judge: Judge | None) -> Verdict | None:
    """Have the suites of a specification asked; returns None where it has none.

    Raises:
        Unjudged: they could not be asked; the same run goes on from here.
        InvalidRequest: nobody here can ask suites.
    """
    if not has_suites(spec):
        return None
    if judge is None:
        raise InvalidRequest("evaluate: no suites can be asked from here")
    found = judge(spec, tuned)
    if found.verdict in UNJUDGED:
        raise Unjudged(
            f"The suites of {spec.name!r} have no verdict ({found.verdict}): {found.reason}; "
            "nothing is registered; run it again to have them asked again"
        )
    return found
