"""Metrics: plug-ins that score what a target made of a case.

A plug-in is a file with `build(parameters) -> Metric`. The laws, run over each by
`tests/contracts/test_metrics.py`: a score lies within the bounds, an empty answer is scored or has
a reason, a case without a reference is unscored and not zero, order makes no difference.

A metric of the whole set, such as F1, has `score_set(trials) -> Score` in place of `score`, and
`takes_part(trial) -> bool`, which says which trials it counts; the others are unscored.

    >>> import asyncio
    >>> from evals.context import Context
    >>> from evals.metric import Parameters
    >>> from evals.scores import Score
    >>> from evals.trial import Case, Output
    >>> class Short(Parameters):
    ...     most: int = 20
    ...
    ...     async def score(self, case, output, context):
    ...         return Score.of(len(output.text) <= self.most)
    >>> build = Short.model_validate
    >>> metric = build({"most": 5})
    >>> asyncio.run(metric.score(Case("1", "How long?"), Output("48 metres"), Context())).value
    0.0
"""

from evals.metric import Metric, Parameters, open_metric

__all__ = ["Metric", "Parameters", "open_metric"]
