"""What an earlier run was of, read back so that it can be trained again, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import Conflict, InvalidRequest, NotFound
from training.run_folder import read_json
from training.spec import FineTuning, parse


@dataclass(frozen=True, slots=True)
class Pinned:
    """A specification, and the digests of all that it named when it was run."""

    spec: FineTuning
    folder: str
    """That its paths are taken from."""
    digests: dict[str, str]


def read_lock(path: Path) -> Pinned:
    """Return what the lock of a run says.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it is no lock.
    """
    if not path.is_file():
        raise NotFound("lock", str(path))
    found = read_json(path) or {}
    try:
        digests = {str(key): str(value) for key, value in found["digests"].items()}
        return Pinned(parse(found["spec"], source=repr(str(path))), str(found["folder"]), digests)
    except (KeyError, AttributeError, TypeError):
        raise InvalidRequest(
            f"{str(path)!r} is no lock; give the lock.json of a run's folder"
        ) from None


def check_same(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Hold what is found now against what a run was of.

    Raises:
        Conflict: something has changed since; names each key with both digests.
    """
    changed = [
        f"{key} is {found.get(key, 'gone')} and was {expected.get(key, 'not there')}"
        for key in sorted({*expected, *found})
        if expected.get(key) != found.get(key)
    ]
    if changed:
        raise Conflict("Not the same as then: " + "; ".join(changed))
