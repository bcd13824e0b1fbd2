"""What a metric is: parameters that are checked, bounds, a direction, and a score for each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeGuard, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from evals import problems
from evals.context import Context
from evals.scores import Score
from evals.trial import Case, Output, Trial
from infra.errors import InvalidConfiguration, InvalidRequest
from infra.plugins import load

Bounds = tuple[float | None, float | None]
PACKAGE = "evals.metrics"


class Metric(Protocol):
    """Scores what a target made of a case."""

    version: ClassVar[int]
    """Raised when the same output would score differently; a baseline of another does not count."""
    bounds: ClassVar[Bounds]
    """The least and the most that a score can be; None has no bound."""
    higher_is_better: ClassVar[bool]
    is_measured: ClassVar[bool]
    """True if two runs differ by nature, as times do; such scores are kept apart."""
    is_pass_or_fail: ClassVar[bool]
    """True if every score is 0 or 1; passes are counted exactly, and not taken for a mean."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        """Return a score; where the metric does not apply, `Score.unscored` with the reason.

        What it raises becomes `Score.error`.
        """
        ...


class SetMetric(Protocol):
    """Scores all outputs together, where a mean over cases is not what is meant, as of F1.

    It has `takes_part` and `score_set` in place of `score`, and is else like a metric.
    """

    version: ClassVar[int]
    bounds: ClassVar[Bounds]
    higher_is_better: ClassVar[bool]
    is_measured: ClassVar[bool]
    is_pass_or_fail: ClassVar[bool]

    def takes_part(self, trial: Trial) -> bool:
        """Whether a trial that has an output counts; one that does not is unscored."""
        ...

    def score_set(self, trials: Sequence[Trial]) -> Score:
        """Return one score of trials that take part; in any order, of any part of the set.

        What it raises becomes `Score.error`.
        """
        ...


class Parameters(BaseModel):
    """A metric whose fields are its parameters; most need nothing else.

    An unknown parameter is refused, with the nearest name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: ClassVar[int] = 1
    bounds: ClassVar[Bounds] = (0.0, 1.0)
    higher_is_better: ClassVar[bool] = True
    is_measured: ClassVar[bool] = False
    is_pass_or_fail: ClassVar[bool] = False
    asks_server: ClassVar[bool] = False
    """Whether it asks one, as judges are; every such call goes through the memory."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Packages whose release decides scores."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Other metrics of the suite whose scores it looks at; each is from 0 to 1, best at 1."""
        return ()

    @property
    def embeds(self) -> bool:
        """Whether the embedder decides scores."""
        return False

    @property
    def identified(self) -> Mapping[str, Any]:
        """Say what parameters stand for whose values alone do not, such as the name of a file.

        Scores by another thing of the same name are not compared.
        """
        return {}


def open_metric(name: str, parameters: Mapping[str, Any], *, label: str = "") -> Metric | SetMetric:
    """Build the metric of plug-in `name`.

    Args:
        name: a file of `evals/metrics`, or a dotted path from a suite of the operator's.
        parameters: as the suite gives them.
        label: what the suite calls it; said in errors.

    Raises:
        InvalidRequest: a parameter is unknown or has a wrong value.
        InvalidConfiguration: there is no such metric, or a method of it is missing.
    """
    try:
        built = load(PACKAGE, name)(parameters)
    except ValidationError as error:
        # `build` is mostly the method of a model, which knows the names that there are.
        model = cast("type[BaseModel]", getattr(load(PACKAGE, name), "__self__", BaseModel))
        words = problems.of_model(error, model)
        raise InvalidRequest(f"Metric {label or name!r}: {words}") from None
    if not (callable(getattr(built, "score", None)) or is_of_set(built)):
        raise InvalidConfiguration(f"The plug-in {name!r} in {PACKAGE} is no metric: no `score`")
    if is_of_set(built) and not callable(getattr(built, "takes_part", None)):
        raise InvalidConfiguration(
            f"The plug-in {name!r} in {PACKAGE} scores sets, and has no `takes_part`, which says "
            "which trials count"
        )
    return cast("Metric", built)


def is_of_set(metric: Metric | SetMetric) -> TypeGuard[SetMetric]:
    """Whether it scores a set and not its cases."""
    return callable(getattr(metric, "score_set", None))
