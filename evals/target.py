"""A target: what is evaluated, as the runner asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from evals.suite import Suite
from evals.target_kinds import Strict
from evals.trial import Case, Output
from infra.plugins import available, load

PACKAGE = "evals.targets"


class Target(Protocol):
    """Answers, or predicts. Built by `service` for what it serves, by `evals/targets` else."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON values that change when its answers may: versions, digests, options."""
        ...

    @property
    def parents(self) -> Sequence[tuple[str, str]]:
        """`(role, reference)` of the artifacts that it is made of."""
        ...

    async def __call__(self, case: Case, *, seed: int) -> Output:
        """Return what it makes of a case; `seed` is for what samples.

        Raises:
            EngineFailed, Overloaded, NotReady, StorageFailed, OSError: not the case's fault; it is
                tried again.
        """
        ...

    async def close(self) -> None: ...


def is_own(suite: Suite) -> bool:
    """Whether the target needs nothing that is served."""
    return suite.target.kind in available(PACKAGE)


def open_target(kind: Strict, *, folder: Any) -> Target:
    """Build a target that needs nothing that is served; `folder` is that of the suite's file."""
    return cast("Target", load(PACKAGE, str(getattr(kind, "kind", "")))(kind, folder))
