"""Perturbations: plug-ins that put the input of a case otherwise and keep its label.

A plug-in is a file with `build(parameters) -> Perturbation`. The laws, run over each by
`tests/contracts/test_perturbations.py`: the same seed gives the same input, the input differs or
there is a reason why not, the case itself stays as it is, and no input makes it crash.

    >>> import random
    >>> from evals.perturbation import Changed, NotApplicable, Parameters, Surroundings
    >>> from evals.trial import Case
    >>> class Thanks(Parameters):
    ...     words: str = "Thank you!"
    ...
    ...     def perturb(self, case, draw, around):
    ...         if not case.question:
    ...             return NotApplicable("the case has no text")
    ...         return Changed(f"{case.input} {self.words}")
    >>> build = Thanks.model_validate
    >>> case = Case("1", "How long?")
    >>> build({}).perturb(case, random.Random(0), Surroundings([case])).input
    'How long? Thank you!'
"""

from evals.perturbation import Changed, NotApplicable, Parameters, Surroundings, open_perturbation

__all__ = ["Changed", "NotApplicable", "Parameters", "Surroundings", "open_perturbation"]
