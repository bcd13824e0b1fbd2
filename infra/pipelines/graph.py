"""The order of steps: who needs whom, in which order they can run, what is not reachable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from infra.artifacts.refs import split
from infra.errors import InvalidRequest
from infra.pipelines.definition import Pipeline, Step
from infra.pipelines.parameters import near, put_places


@dataclass(frozen=True, slots=True)
class Graph:
    """A pipeline whose parts fit together."""

    order: tuple[str, ...]
    """Every step after those it needs; otherwise as in the file."""
    sources: Mapping[str, Mapping[str, str]]
    """By step, its inputs that another step makes: local name -> `kind/name`."""
    makers: Mapping[str, str]
    """By artifact, the step that makes it."""
    needs: Mapping[str, tuple[str, ...]]
    """By step, the steps it comes after, in the order of the file."""

    def dependants(self, step: str) -> set[str]:
        """Return the steps that come after one, however far."""
        found = {step}
        for name in self.order:
            if found & set(self.needs[name]):
                found.add(name)
        return found - {step}


def build(pipeline: Pipeline) -> Graph:
    """See that the steps of a pipeline fit together.

    Raises:
        InvalidRequest: steps need each other in a circle (named as a path), two make the same
            artifact, or something refers to what is not there (the nearest name is suggested).
    """
    makers = _makers(pipeline)
    sources = {
        name: {
            local: reference
            for local, reference in step.inputs.items()
            if reference in makers  # with a version or an alias it means the store's, as it stands
        }
        for name, step in pipeline.steps.items()
    }
    needs: dict[str, tuple[str, ...]] = {}
    for name, step in pipeline.steps.items():
        _check_step(name, step, pipeline)
        wanted = {makers[reference] for reference in sources[name].values()} | set(step.after)
        needs[name] = tuple(each for each in pipeline.steps if each in wanted)
    return Graph(_order(needs), sources, makers, needs)


def _makers(pipeline: Pipeline) -> dict[str, str]:
    makers: dict[str, str] = {}
    for name, step in pipeline.steps.items():
        for output in step.outputs.values():
            if output.artifact in makers:
                raise InvalidRequest(
                    f"steps.{name}: {output.artifact!r} is made by step "
                    f"{makers[output.artifact]!r} already; one step makes one artifact"
                )
            makers[output.artifact] = name
    return makers


def _check_step(name: str, step: Step, pipeline: Pipeline) -> None:
    for each in step.after:
        if each not in pipeline.steps:
            raise InvalidRequest(
                f"steps.{name}.after: no step {each!r}{near(each, list(pipeline.steps))}"
            )
    for local, reference in step.inputs.items():
        if not reference.startswith("./"):
            _check_reference(reference, where=f"steps.{name}.inputs.{local}")
    places = [output.path for output in step.outputs.values()]
    for place in places:
        if any(other is not place and f"{place}/".startswith(f"{other}/") for other in places):
            raise InvalidRequest(f"steps.{name}.outputs: two of them lie at {place!r}")
        if place.split("/")[0] == "inputs":
            raise InvalidRequest(f"steps.{name}.outputs: {place!r} is where inputs lie")
    put_places([*step.run, step.arguments], places_of(step), where=f"steps.{name}")


def places_of(step: Step, references: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what `${inputs.x}`, `${outputs.x}` and `${references.x}` stand for.

    Folders are relative to the step's own. Without `references`, they stand for themselves.
    """
    named = references or step.inputs
    return (
        {f"inputs.{local}": f"inputs/{local}" for local in step.inputs}
        | {f"outputs.{local}": output.path for local, output in step.outputs.items()}
        | {
            f"references.{local}": named[local]
            for local in step.inputs
            if local not in step.local_names
        }
    )


def _check_reference(reference: str, *, where: str) -> None:
    try:
        split(reference.partition("@")[0])
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}; files begin with './'") from None


def _order(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        path: list[str] = error.args[1]
        raise InvalidRequest(
            f"steps: {' -> '.join(path)} is a circle; each would wait for the one before it"
        ) from None
    place = {name: number for number, name in enumerate(needs)}
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=place.__getitem__)
        first = ready.pop(0)
        order.append(first)
        sorter.done(first)
    return tuple(order)
