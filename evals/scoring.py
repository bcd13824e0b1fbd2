"""Scores as they are taken from metrics: whatever one returns or raises becomes a score."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from evals.metric import Metric, SetMetric
from evals.scores import Score
from evals.trial import Output, Trial
from infra.errors import RagstoneError


def membership(metric: SetMetric, trial: Trial) -> Score:
    """Return a number where a trial counts in a metric of the set, else why it does not."""
    if trial.output is None:
        return Score.error(trial.failure)
    try:
        takes_part = metric.takes_part(trial)
    except Exception as error:  # noqa: BLE001  a metric's failure is a score like any other
        return Score.error(words(error))
    return Score.of(0.0) if takes_part else Score.unscored("the trial does not take part")


def of_set(metric: SetMetric, trials: Sequence[Trial]) -> Score:
    """Return the score of the trials that take part, as `checked` has it."""
    if trials and all(trial.output is None for trial in trials):
        return Score.error("no trial has an output")
    return of_counted(metric, counted(metric, trials))


def counted(metric: SetMetric, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that take part."""
    return [trial for trial in trials if membership(metric, trial).state == "scored"]


def of_counted(metric: SetMetric, trials: Sequence[Trial]) -> Score:
    """Return the score of trials that all take part."""
    if not trials:
        return Score.unscored("no trial takes part")
    try:
        found: object = metric.score_set(trials)
    except Exception as error:  # noqa: BLE001  as in `membership`
        return Score.error(words(error))
    return checked(found, metric)


def checked(found: object, metric: Metric | SetMetric) -> Score:
    """Return what a metric returned, if it is a score that can be kept and that it may give."""
    if not isinstance(found, Score):
        return Score.error(f"the metric returned {found!r:.80}, which is no Score")
    if not is_writable(found):
        return Score.error("the metric returned a reason or details that are not JSON")
    if found.value is None:
        return found
    low, high = metric.bounds
    if (low is not None and found.value < low) or (high is not None and found.value > high):
        return Score.error(f"the metric returned {found.value!r}, outside its bounds {low}, {high}")
    if metric.is_pass_or_fail and found.value not in (0.0, 1.0):
        return Score.error(f"the metric returned {found.value!r}, and it passes or fails: 0 or 1")
    return found


def is_writable(found: Output | Score) -> bool:
    """Whether it can be kept: half a surrogate pair, for one, cannot."""
    try:
        orjson.dumps(found.as_dict(), default=str)
    except TypeError:
        return False
    return True


def words(error: BaseException, timeout_seconds: float | None = None) -> str:
    """Return an exception as the reason of a score or trial."""
    if isinstance(error, RagstoneError):
        return error.message
    if type(error) is TimeoutError and timeout_seconds is not None:
        return f"nothing came within {timeout_seconds:g} s"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
