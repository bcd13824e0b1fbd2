"""What a check is: a test other than a gate, with a finding that is named and has evidence."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from evals import problems
from evals.evaluation import Evaluation
from evals.gates import Verdict
from evals.suite import CheckUse, Suite
from infra.errors import InvalidConfiguration, InvalidRequest, RagstoneError
from infra.plugins import load

if TYPE_CHECKING:
    from infra.contracts import Interaction
    from infra.expectations.records import DatasetCheck

PACKAGE = "evals.checks"
MOST_FAILING = 50
"""What fails is named, up to so many."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    verdict: Verdict
    reason: str
    evidence: tuple[tuple[str, str], ...] = ()
    """Names and values that led to the verdict, in words."""
    failing: tuple[str, ...] = ()
    """What does not hold, each by name: a case, a rule, a metric."""
    name: str = ""
    """Of the check in its suite."""
    kind: str = ""
    """The plug-in."""
    decides: bool = True
    """Whether the suite's verdict depends on it; else it warns."""

    @property
    def blocks(self) -> bool:
        """Whether it stands in the way of going live."""
        return self.decides and self.verdict is not Verdict.PASS

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Finding:
        """Return a finding from JSON values, as a stored verdict has them."""
        return cls(
            **{
                **value,
                "verdict": Verdict(value["verdict"]),
                "evidence": tuple((label, said) for label, said in value["evidence"]),
                "failing": tuple(value["failing"]),
            }
        )

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Checked:
    """What is recorded of one version of a dataset."""

    reference: str
    """With its version, whatever name or alias was looked up."""
    digest: str
    results: Sequence[DatasetCheck]
    """The last one of each suite of expectations."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What checks look at: a finished evaluation, and what this process can find besides."""

    evaluation: Evaluation
    folder: Path
    """Of the suite's file; paths are relative to it."""
    now: datetime
    """With its time zone; freshness is measured against it."""
    find_evaluation: Callable[[str], Evaluation]
    find_checked: Callable[[str], Checked]
    """A dataset's reference to what its version was checked with."""
    find_interactions: Callable[[str, datetime | None], Iterable[Interaction]]
    """A model's name to what is recorded of it from a moment on, newest first."""

    @property
    def suite(self) -> Suite:
        return self.evaluation.described.suite


class Check(Protocol):
    """Tests what an evaluation stands on, or what it found, in a way that no gate does."""

    def require(self, suite: Suite) -> None:
        """See, before anything is run, that the check makes sense for a suite.

        Raises:
            InvalidRequest: it does not; says what to mend.
        """
        ...

    def check(self, subject: Subject) -> Finding:
        """Return a finding; what is raised becomes one that says `infrastructure`."""
        ...


class Parameters(BaseModel):
    """A check whose fields are its parameters. An unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def reads(self) -> tuple[str, ...]:
        """The metrics of the suite whose scores decide it; judges of them need a card."""
        return ()

    def require(self, suite: Suite) -> None:
        """Need nothing of a suite."""


def open_check(use: CheckUse) -> Check:
    """Build a check.

    Raises:
        InvalidRequest: a parameter is unknown or has a wrong value.
        InvalidConfiguration: there is no such check, or it has no `check`.
    """
    try:
        built = load(PACKAGE, use.check)(use.parameters)
    except ValidationError as error:
        # `build` is mostly the method of a model, which knows the names that there are.
        model = cast("type[BaseModel]", getattr(load(PACKAGE, use.check), "__self__", BaseModel))
        words = problems.of_model(error, model)
        raise InvalidRequest(f"Check {use.name!r}: {words}") from None
    if not callable(getattr(built, "check", None)):
        raise InvalidConfiguration(f"The plug-in {use.check!r} in {PACKAGE} has no `check`")
    return cast("Check", built)


def require_all(suite: Suite) -> None:
    """See that every check of a suite can be built and makes sense. Raises as they do."""
    for use in suite.checks:
        built = open_check(use)
        try:
            built.require(suite)
        except InvalidRequest as error:
            raise InvalidRequest(f"Check {use.name!r}: {error.message}") from None


def carry_out(subject: Subject) -> tuple[Finding, ...]:
    """Return the finding of every check of the suite; none of them is lost to another's failure.

    All of them together have the suite's deadline. What is not found by then is not waited for: its
    thread goes on until it ends by itself, or with the process.
    """
    uses, seconds = subject.suite.checks, subject.suite.deadline_seconds
    found: list[Finding] = []

    def work() -> None:
        for use in uses:
            found.append(_carried_out(use, subject))

    if seconds is None or not uses:
        work()
        return tuple(found)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="checks", daemon=True)
    thread.start()
    thread.join(seconds)
    done = tuple(found)  # the thread may still add to it
    late = [
        Finding(
            Verdict.INFRASTRUCTURE,
            f"not {'run' if place else 'finished'}: the deadline of {seconds:g} s had passed",
        )
        for place in range(len(uses) - len(done))
    ]
    return (*done, *map(_of, uses[len(done) :], late))


def _carried_out(use: CheckUse, subject: Subject) -> Finding:
    try:
        found = open_check(use).check(subject)
        if not isinstance(found, Finding):
            raise InvalidConfiguration(f"The check returned {found!r:.80}, which is no Finding")
    except RagstoneError as error:
        found = Finding(Verdict.INFRASTRUCTURE, error.message)
    except (Exception, SystemExit) as error:  # noqa: BLE001  what an operator's code does is one too
        found = Finding(Verdict.INFRASTRUCTURE, f"{type(error).__name__}: {error}")
    return _of(use, found)


def _of(use: CheckUse, found: Finding) -> Finding:
    """Return a finding with what the suite says of its check."""
    failing = found.failing
    if len(failing) > MOST_FAILING:
        failing = (*failing[:MOST_FAILING], f"and {len(failing) - MOST_FAILING} more")
    return replace(
        found,
        name=use.name,
        kind=use.check,
        decides=use.action == "block",
        failing=failing,
    )
