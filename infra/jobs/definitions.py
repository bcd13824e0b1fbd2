"""What a job is: a named function, what it needs while it runs, how often it is tried again."""

from __future__ import annotations

import glob
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from infra.errors import (
    InvalidConfiguration,
    InvalidRequest,
    MissingDependency,
    NotFound,
    Unauthenticated,
)

MAX_LANE_CHARACTERS = 255
Json = Any
"""None, bool, int, float, str, and lists and dicts of them."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job holds while it runs, or what a worker has to give."""

    cpu: float = 1.0
    """Cores; a job that only waits for another process may ask for a fraction."""
    gpu: int = 0
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.cpu, self.gpu, self.memory_bytes) < 0:
            raise InvalidRequest(f"Resources cannot be negative: {self!r}", parameter="resources")

    @classmethod
    def of_this_machine(cls) -> Resources:
        return cls(
            cpu=float(os.cpu_count() or 1),
            gpu=len(glob.glob("/dev/nvidia[0-9]*")),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )

    def fits(self, free: Resources) -> bool:
        return (
            self.cpu <= free.cpu + 1e-9  # sums of fractions are not exact
            and self.gpu <= free.gpu
            and self.memory_bytes <= free.memory_bytes
        )

    def less(self, taken: Resources) -> Resources:
        """What is left; never below nothing."""
        return Resources(
            cpu=max(0.0, self.cpu - taken.cpu),
            gpu=max(0, self.gpu - taken.gpu),
            memory_bytes=max(0, self.memory_bytes - taken.memory_bytes),
        )


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a job may go wrong before it joins the dead letters."""

    attempts: int = 3
    """Attempts that may end in an error."""
    first_delay_seconds: float = 5.0
    factor: float = 2.0
    max_delay_seconds: float = 3600.0
    crashes: int = 5
    """Attempts that may end with the death of their worker; past it, the job is the suspect."""
    permanent: tuple[type[Exception], ...] = (
        InvalidConfiguration,
        InvalidRequest,
        MissingDependency,
        NotFound,
        Unauthenticated,
    )
    """Errors that trying again cannot mend."""

    def delay_seconds(self, failures: int) -> float:
        """How long to wait after the failure with this number, the first being 1."""
        return min(self.max_delay_seconds, self.first_delay_seconds * self.factor ** (failures - 1))


@dataclass(frozen=True, slots=True)
class Options:
    """How one job is started."""

    key: str | None = None
    """Starting the same job of the same tenant with the same key again returns the first."""
    tenant: str = "default"
    priority: int = 0
    """Higher goes first; among equals, first come."""
    resources: Resources | None = None
    """Instead of what the definition asks for."""
    at: datetime | None = None
    """Not before this moment."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What sets a kind of job apart from others; by default nothing."""

    steps: bool = True
    """Whether what its steps gave is remembered. A job whose work remembers itself needs none, and
    begins sooner."""
    lane: str | Callable[[Mapping[str, Json]], str] | None = None
    """Filled in with the arguments, as by `str.format`, or made of them. Of the jobs in one lane
    only `width` run at a time, over all workers."""
    width: int = 1
    join: bool = False
    """Starting it returns a job with the same arguments that waits already, if there is one: for
    work that takes up all there is to do."""
    detached: bool = False
    """Whether it starts programs that live on without it. Cancelled while no worker runs it, it is
    run once more, interrupted from its beginning, to end them."""
    remote: bool = False
    """Whether it may be started over HTTP, where the arguments are a stranger's."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A kind of job."""

    name: str
    function: Callable[..., Json]
    """Called with an `Attempt` and the arguments by name; returns what JSON can hold."""
    resources: Resources = Resources()
    retries: Retries = Retries()
    behaviour: Behaviour = Behaviour()

    def lane(self, arguments: dict[str, Json]) -> str | None:
        """Return the lane of a job with these arguments, if it has one."""
        lane = self.behaviour.lane
        if lane is None:
            return None
        try:
            made = lane.format(**arguments) if isinstance(lane, str) else lane(arguments)
            return made[:MAX_LANE_CHARACTERS]
        except (KeyError, IndexError):
            return None  # it will fail for want of that argument

    def check(self, arguments: dict[str, Json]) -> None:
        """See that the function takes these arguments.

        Raises:
            InvalidRequest: it does not; the message says which.
        """
        try:
            inspect.signature(self.function).bind(None, **arguments)
        except TypeError as error:
            raise InvalidRequest(f"Job {self.name!r}: {error}", parameter="arguments") from None


@dataclass(frozen=True, slots=True)
class Registry:
    """The kinds of job that this process has code for.

    >>> registry = Registry()
    >>> @registry.job("greet")
    ... def greet(attempt, name):
    ...     return attempt.step("compose", lambda: f"Hello, {name}!")
    >>> registry.names
    ['greet']
    """

    _definitions: dict[str, Definition] = field(default_factory=dict)

    def job(
        self,
        name: str,
        *,
        resources: Resources = Resources(),
        retries: Retries = Retries(),
        behaviour: Behaviour = Behaviour(),
    ) -> Callable[[Callable[..., Json]], Callable[..., Json]]:
        """Register the decorated function, which is returned as it is; see `Definition`.

        Raises:
            InvalidConfiguration: the name is taken.
        """

        def register(function: Callable[..., Json]) -> Callable[..., Json]:
            if name in self._definitions:
                raise InvalidConfiguration(f"Job {name!r} is defined twice; rename one of them")
            self._definitions[name] = Definition(name, function, resources, retries, behaviour)
            return function

        return register

    def get(self, name: str) -> Definition:
        """Return a definition.

        Raises:
            NotFound: this process has no code for it.
        """
        try:
            return self._definitions[name]
        except KeyError:
            raise NotFound("job", name, among=self._definitions) from None

    @property
    def forgetful(self) -> frozenset[str]:
        """The names of those whose steps are not remembered."""
        return frozenset(
            each.name for each in self._definitions.values() if not each.behaviour.steps
        )

    @property
    def detached(self) -> frozenset[str]:
        """The names of those whose programs live on without them."""
        return frozenset(
            each.name for each in self._definitions.values() if each.behaviour.detached
        )

    @property
    def widths(self) -> dict[str, int]:
        """How many jobs of one lane run at a time, for those whose lanes are wider than one."""
        return {
            each.name: each.behaviour.width
            for each in self._definitions.values()
            if each.behaviour.width > 1
        }

    @property
    def names(self) -> list[str]:
        return sorted(self._definitions)


def plain(value: Json, what: str) -> Json:
    """Return a value as it will be read back: a copy that went through JSON.

    Raises:
        InvalidRequest: it cannot be; `what` says what it was.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{what} cannot be stored as JSON ({error}); use plain values: {value!r:.200}"
        ) from None
