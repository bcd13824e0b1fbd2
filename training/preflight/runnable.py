"""What a specification can say and no run carries out yet: suites, canaries; sweeps are of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem
from training.spec import FineTuning

CHECK = "runnable"


def not_run_yet(spec: FineTuning) -> Iterator[tuple[str, str]]:
    """Return each key that asks for what is not done yet, with what to do instead."""
    for name in ("suites", "regressions"):
        if getattr(spec.evaluate, name):
            what = "suites are run by hand yet, with 'ragstone eval run'; take them out"
            yield f"evaluate.{name}", what
    if spec.serve is not None and spec.serve.canary is not None:
        what = "the run moves no traffic yet; take it out, and move routes by hand afterwards"
        yield "serve.canary", what
    if spec.sweep is not None:
        yield "sweep", "a run is of one specification; start it with 'ragstone train sweep'"


class _Runnable(Silent):
    def __init__(self, spec: FineTuning) -> None:
        self._spec = spec

    def problems(self, _: Derived) -> Iterable[Problem]:
        return [Problem(CHECK, where, what) for where, what in not_run_yet(self._spec)]


def build(facts: Facts) -> Check:
    return _Runnable(facts.spec)
