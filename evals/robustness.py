"""Robustness: each case again with its input perturbed, and how much a metric drops by that."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from evals.cases import digest_of
from evals.execution import seed_of
from evals.perturbation import NotApplicable, Perturbation, Surroundings, open_perturbation
from evals.suite import ALL, Perturb, Suite
from evals.trial import Case
from infra.errors import InvalidRequest

MARK = "~"
"""Between the id of a case and what its copy is."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The perturbed copies of the cases, and why some have none."""

    cases: tuple[Case, ...] = ()
    skipped: tuple[tuple[str, str, str], ...] = ()
    """Case, the perturbation's name in the suite, and the reason."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Of each perturbation, by its name in the suite."""

    @property
    def digest(self) -> str:
        """Of the copies and of what made them; empty without perturbations."""
        if not self.versions:
            return ""
        made_by = orjson.dumps(self.versions, option=orjson.OPT_SORT_KEYS).decode()
        content = f"{made_by}\n{digest_of(self.cases)}"
        return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def expand(suite: Suite, cases: Sequence[Case]) -> Copies:
    """Return the copies that a suite asks for, perturbation by perturbation.

    A copy has the label and the cluster of its case, and is in no slice but that of its
    perturbation, so that gates on all cases mean what they did.

    Raises:
        InvalidRequest: a parameter is wrong, a perturbation fits no case, or an id is taken.
        InvalidConfiguration: there is no such perturbation.
    """
    made: list[Case] = []
    skipped: list[tuple[str, str, str]] = []
    around = Surroundings(tuple(cases))
    versions: dict[str, int] = {}
    for use in suite.robustness:
        built = open_perturbation(use.perturbation, use.parameters, label=use.name)
        versions[use.name] = built.version
        chosen = [case for case in cases if use.slice == ALL or use.slice in case.slices]
        before = len(made)
        for case in chosen:
            found = _copies(case, use, built, around=around, seed=suite.seed)
            if isinstance(found, NotApplicable):
                skipped.append((case.id, use.name, found.reason))
            else:
                made += found
        if len(made) == before:
            raise InvalidRequest(
                f"robustness: {use.name!r} changes none of {len(chosen)} cases: "
                f"{skipped[-1][2] if skipped else 'there are none'}; take it out, or mend it"
            )
    taken = {case.id for case in cases} & {case.id for case in made}
    if taken:
        raise InvalidRequest(
            f"The id {min(taken)!r} would be that of a perturbed copy; give the case another"
        )
    return Copies(tuple(made), tuple(skipped), versions)


def _copies(
    case: Case, use: Perturb, built: Perturbation, *, around: Surroundings, seed: int
) -> list[Case] | NotApplicable:
    made = []
    for number in range(use.copies):
        end = f"-{number + 1}" if use.copies > 1 else ""
        name = f"{case.id}{MARK}{use.name}{end}"
        draw = random.Random(seed_of(seed, name, built.version))
        found = built.perturb(case, draw, around)
        if isinstance(found, NotApplicable):
            return found
        if found.input == case.input:
            return NotApplicable("the perturbation changed nothing")
        made.append(
            replace(
                case,
                id=name,
                input=found.input,
                slices=(use.name,),
                metadata={**case.metadata, **found.metadata},
                original=case.id,
            )
        )
    return made
