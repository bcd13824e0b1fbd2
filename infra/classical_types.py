"""Which types the file of a pipeline may hold: classes of known libraries, never functions."""

from __future__ import annotations

import importlib

_REVIEWED = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy.dtype",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
    }
)
_OURS = "training.tabular."
_LIBRARY = "sklearn."


def is_reviewed(name: str) -> bool:
    """Whether a type may be made when a pipeline is read, by its dotted name.

    >>> is_reviewed("sklearn.linear_model.Ridge"), is_reviewed("builtins.eval")
    (True, False)
    """
    if name in _REVIEWED or name.startswith(_OURS):
        return True
    if not name.startswith(_LIBRARY):
        return False
    module, _, attribute = name.rpartition(".")
    try:  # a function could be one that runs what it is told
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    except (ImportError, AttributeError):
        return False
