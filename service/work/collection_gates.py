"""Holds a new build of a collection against the live one by a suite of questions, as a gate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from evals.target_kinds import CollectionTarget
from infra.errors import InvalidRequest

if TYPE_CHECKING:
    from evals.suite import Gate, Suite
    from retrieval.builds import Evaluate, Verdict
    from retrieval.collections import Collection
    from service.evaluation.evaluating import Stored
    from service.wiring import Components


def opened(parts: Components, file: str, whole: Collection, *, candidates: int = 1) -> Evaluate:
    """Return what asks both builds all questions of a suite and lets its gates decide.

    A gate with a margin compares with the live build; a floor looks at the new one alone. So many
    `candidates` share the error of each gate: the first that passes answers, and the more are
    tried, the likelier one passes by chance.

    Raises:
        InvalidRequest: the suite is of another target, or nothing in it decides.
        NotFound: there is no such file.
    """
    from evals.suite import read

    path = Path(file)
    if not path.is_absolute():
        raise InvalidRequest(f"{file!r} means another file in every folder; name all of it")
    suite = read(path)
    target = suite.target
    if not isinstance(target, CollectionTarget):
        raise InvalidRequest(f"The suite {suite.name!r} asks no collection, but {target.kind!r}")
    if parts.collections.get(target.collection).id != whole.id:
        raise InvalidRequest(
            f"The suite {suite.name!r} asks {target.collection!r}, and {whole.name!r} is re-indexed"
        )
    actions = [*(each.action for each in suite.gates), *(each.action for each in suite.checks)]
    if "block" not in actions:
        raise InvalidRequest(f"The suite {suite.name!r} has no gate or check that blocks; add one")

    suite = suite.model_copy(
        update={"gates": tuple(_shared(each, candidates) for each in suite.gates)}
    )
    known: dict[int, Stored] = {}

    def evaluate(live: Collection, candidate: Collection) -> Verdict:
        from service.wiring import Components

        # Connections to model servers belong to one event loop: this one has parts of its own.
        with closing(Components(parts.settings)) as inside:
            if live.build_id not in known:
                known[live.build_id], _ = _evaluated(inside, suite, path.parent, live)
            before = known[live.build_id]
            after, verdict = _evaluated(inside, suite, path.parent, candidate, before)
        return _verdict(before, after, verdict)

    return evaluate


def _shared(gate: Gate, candidates: int) -> Gate:
    from evals.declared import ALPHA

    if gate.action != "block":
        return gate
    return gate.model_copy(update={"alpha": (gate.alpha or ALPHA) / max(1, candidates)})


def _verdict(before: Stored, after: Stored, verdict: str) -> Verdict:
    from evals.verdicts import EXIT_CODES
    from retrieval.builds import Verdict

    said = f"{after.reference} beside {before.reference} of the live build: {verdict}"
    scores = {
        f"{name}{of}": mean
        for of, found in (("", after), (" of the live build", before))
        for name in found.evaluation.described.metrics
        if (mean := found.evaluation.mean(name)) is not None
    }
    worst = list(_at_their_worst(before, after))
    if worst:
        said += f"; {', '.join(worst)} cannot be worse in either build, so that no margin decides"
    return Verdict(EXIT_CODES[verdict] == 0 and not worst, said, scores)


def _at_their_worst(before: Stored, after: Stored) -> Iterator[str]:
    """Yield metrics with a margin of which both builds have the worst there is.

    A suite about other documents, say, finds nothing in the live build nor in any other.
    """
    described = after.evaluation.described
    for gate in described.suite.gates:
        measured = described.metrics[gate.metric]
        if gate.margin is None or gate.action != "block" or measured.bounds is None:
            continue
        worst = measured.bounds[0 if measured.higher_is_better else 1]
        if all(each.evaluation.mean(gate.metric) == worst for each in (before, after)):
            yield gate.metric


def _evaluated(
    parts: Components,
    suite: Suite,
    folder: Path,
    build: Collection,
    before: Stored | None = None,
) -> tuple[Stored, str]:
    """Ask one build everything, and keep what came out; goes on where a killed run had come to."""
    from service.evaluation import evaluating
    from service.evaluation.targets.collection import CollectionAnswers

    assert isinstance(suite.target, CollectionTarget)
    target = CollectionAnswers(suite.target, parts, build)
    asking = evaluating.ask(parts, suite, folder, target=target, before=before)
    stored, judgement = asyncio.run(asking)
    return stored, judgement.verdict
