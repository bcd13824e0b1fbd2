"""A verified adapter becomes a version of `adapter/NAME`, is read back, and gets its alias."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.errors import InvalidConfiguration
from training.judging import PASS, Verdict
from training.sentinel import Aborted
from training.specification.delivery import Register

KIND = "adapter"
CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an adapter comes from, and what was found of it."""

    parents: Sequence[tuple[str, str]]
    """`(role, reference)` of the artifacts that it was made from; the base's role is `base`."""
    facts: Mapping[str, Any]
    """Digests of what it was made from and what was measured; part of what it is."""
    job: str | None = None
    verdict: Verdict | None = None
    """Of its suites, if it has any."""


@dataclass(frozen=True, slots=True)
class Registering:
    """How an adapter is registered."""

    asked: Register
    origin: Origin
    check: Callable[[Path], object]
    """Is shown what the store gives back, and raises if that is not what was trained."""
    note: Callable[[str], None] = lambda _: None


def name_base(folder: Path, base_name: str) -> None:
    """Write into an adapter's configuration what its base is called."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def register(store: ArtifactStore | None, folder: Path, how: Registering) -> Reference:
    """Put an adapter into the store, read it back, and point the alias at it.

    The alias moves only if the suites passed, or there are none.

    Raises:
        InvalidConfiguration: there is no store.
        StorageFailed: the store is full or out of reach; nothing of it is visible.
        NotFound: a parent is gone from the store.
        Unsound: what the store gives back is not what was trained; no alias points at it.
    """
    if store is None:
        raise InvalidConfiguration("register: there is no artifact store here")
    asked, origin = how.asked, how.origin
    parents = [*origin.parents]
    facts = dict(origin.facts)
    if origin.verdict is not None:
        parents += origin.verdict.evaluations
        facts |= {"verdict": origin.verdict.verdict, "gates": list(origin.verdict.gates)}
    made = Made(metadata=facts, parents=tuple(parents), job=origin.job)
    reference = store.put(folder, f"{KIND}/{asked.name}", made)
    how.note(f"registered {reference}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            how.check(store.checkout(str(reference), Path(scratch) / "adapter", verify=True))
    except Aborted:
        store.expire(str(reference))
        raise
    passes = origin.verdict is None or origin.verdict.verdict == PASS
    if asked.alias is not None and passes:
        store.tag(str(reference), asked.alias, actor=origin.job)
        how.note(f"{KIND}/{asked.name}@{asked.alias} points at it")
    return reference
