"""Refuses models of newer libraries, which older ones may load and then answer nonsense by."""

from __future__ import annotations

import re
from collections.abc import Iterable

from infra.errors import InvalidRequest

_NUMBERS = re.compile(r"(\d+)\.(\d+)")


def refuse_newer(written: Iterable[tuple[int, int]], *, library: str, installed: str) -> None:
    """Hold the major and minor numbers under which a model was written against what is here.

    Older ones are let through: that libraries promise, and loading tries the model.

    Raises:
        InvalidRequest: some are newer; names both.
    """
    found = _NUMBERS.match(installed)
    here = (int(found[1]), int(found[2])) if found else (0, 0)
    newest = max(written, default=here)
    if newest > here:
        raise InvalidRequest(
            f"The model was written by {library} {newest[0]}.{newest[1]}, and {installed} is "
            "installed here, which may answer otherwise; install that one, or train it again"
        )
