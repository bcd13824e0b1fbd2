"""Drift detectors: plug-ins that compare windows, or watch a stream, of numbers of any origin.

A plug-in is a file with `build(parameters)`, which returns a detector with `reads`, the kinds of
columns it takes, and one of two methods: `compare(reference, current) -> Finding` for two windows,
or `watch(reference)`, whose `update(values) -> Finding` takes a stream in as it comes. The laws,
run over each by `tests/contracts/test_drift.py`: it raises no more false alarms than its level
says, it finds a planted shift, too few rows are `not_enough_data`, the same rows give the same
finding.

    >>> import numpy as np
    >>> from typing import ClassVar
    >>> from monitoring.columns import Column
    >>> from monitoring.detector import NUMBERS, Parameters
    >>> from monitoring.findings import Finding
    >>> class Sign(Parameters):
    ...     reads: ClassVar = NUMBERS
    ...
    ...     def compare(self, reference, current):
    ...         from scipy.stats import fisher_exact
    ...         signs = [column.present > 0 for column in (reference, current)]
    ...         p = float(fisher_exact([[up.sum(), (~up).sum()] for up in signs]).pvalue)
    ...         return Finding("sign", "stable", "share above 0", p_value=p).judged(self.level)
    >>> build = Sign.model_validate
    >>> detector = build({"level": 0.01})
    >>> rng = np.random.default_rng(0)
    >>> old, new = rng.normal(size=500), rng.normal(loc=1, size=500)
    >>> detector.compare(Column.of(old), Column.of(new)).verdict
    'drift'
"""

from monitoring.detector import open_detector

__all__ = ["open_detector"]
