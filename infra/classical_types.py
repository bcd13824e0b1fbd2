"""Which types the file of a pipeline may hold: classes of known libraries, never functions."""

from __future__ import annotations

import importlib

_REVIEWED = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy.dtype",
        "training.tabular.coded.Coded",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
        "lightgbm.sklearn.LGBMRegressor",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
        "xgboost.sklearn.XGBRegressor",
    }
)
_LIBRARY = "sklearn."


def is_reviewed(name: str) -> bool:
    """Whether a type may be made when a pipeline is read, by its dotted name.

    >>> is_reviewed("sklearn.linear_model.Ridge"), is_reviewed("builtins.eval")
    (True, False)
    """
    if name in _REVIEWED:
        return True
    if not name.startswith(_LIBRARY):
        return False
    module, _, attribute = name.rpartition(".")
    try:  # a function could be one that runs what it is told
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    # What a module of the library imported from elsewhere is not the library's.
    return isinstance(found, type) and found.__module__.startswith(_LIBRARY)
