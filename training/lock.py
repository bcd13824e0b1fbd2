"""The lock of a run: the specification with the digests of all it names and the numbers derived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from training.compressing import device_bytes, stored_bytes
from training.preflight import Facts
from training.row_source import Rows
from training.sizing import Sizes
from training.spec import as_json

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
"""Whose versions a result depends on."""


@dataclass(frozen=True, slots=True)
class Lock:
    """All that decides the result, and what it was planned to take."""

    name: str
    spec: Mapping[str, Any]
    folder: str
    """That paths of the specification are taken from."""
    digests: Mapping[str, str]
    """By key: `base.model`, `base.template`, `data.train`, ..."""
    packages: Mapping[str, str]
    launch: tuple[str, ...]
    """The command that runs it."""
    lengths: Mapping[str, Any]
    """By source: rows, tokens, quantiles."""
    topology: Mapping[str, Any] | None
    batches: Mapping[str, Any] | None
    memory: Mapping[str, int] | None
    """Bytes of a process, by what they hold."""
    gradient_checkpointing: bool
    hours: float | None
    cost: float | None
    compressed: Mapping[str, int] | None = None
    """Bytes of all weights on disk, `before` and `after`, and of the device `at_work`, where the
    specification has them so."""

    @property
    def digest(self) -> str:
        """Equal for locks that say the same."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def lock(
    facts: Facts,
    folder: Path,
    sources: Mapping[str, Rows],
    sizes: Sizes,
    *,
    launch: tuple[str, ...],
) -> Lock:
    """Return the lock of what was found; what was not is left out of it."""
    digests = {key: rows.digest for key, rows in sources.items()}
    if facts.base is not None and facts.base.digest is not None:
        digests["base.model"] = facts.base.digest
    if facts.training_template is not None:
        digests["base.template"] = facts.training_template.digest
    derived = sizes.derived
    memory = None
    if derived.memory is not None:
        memory = {**asdict(derived.memory), "total": derived.memory.total}
    return Lock(
        name=facts.spec.name,
        spec=as_json(facts.spec),
        folder=str(folder.resolve()),
        digests=dict(sorted(digests.items())),
        packages=packages(),
        launch=launch,
        lengths={key: asdict(found) for key, found in derived.lengths.items()},
        topology=asdict(derived.topology) if derived.topology else None,
        batches=asdict(derived.batches) if derived.batches else None,
        memory=memory,
        gradient_checkpointing=sizes.checkpointing,
        hours=derived.hours,
        cost=derived.cost,
        compressed=_compressed(facts),
    )


def _compressed(facts: Facts) -> dict[str, int] | None:
    base, how, dtype = facts.base, facts.spec.compress, facts.spec.base.dtype
    if base is None or how is None:
        return None
    return {
        "before": stored_bytes(base.shape, None, dtype=dtype),
        "after": stored_bytes(base.shape, how, dtype=dtype),
        "at_work": device_bytes(base.shape, how, dtype=dtype),
    }


def packages(*others: str) -> dict[str, str]:
    """Return the versions of what is installed of `PACKAGES`, and of others."""
    found = {}
    for name in (*PACKAGES, *others):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
