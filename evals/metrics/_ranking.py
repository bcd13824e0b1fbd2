"""What retrieval is judged on: the documents in the order found, with their grades."""

from __future__ import annotations

from pydantic import Field

from evals.context import Context
from evals.metric import Parameters
from evals.scores import Score
from evals.trial import Case, Output


class Ranked(Parameters):
    """A metric of the first `k` documents; a document stands where its best passage does."""

    k: int = Field(default=10, ge=1, le=1000)

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        del context
        wanted = {name: grade for name, grade in case.relevant.items() if grade > 0}
        if not wanted:
            return Score.unscored("the case names no relevant document")
        found = grades(case, output)[: self.k]
        return Score.of(self.measure(found, sorted(wanted.values(), reverse=True)))

    def measure(self, found: list[float], wanted: list[float]) -> float:
        """Return the metric.

        Args:
            found: grades of the first `k` documents, best first; 0 is not relevant.
            wanted: the positive grades of all relevant documents, highest first.
        """
        raise NotImplementedError


def grades(case: Case, output: Output) -> list[float]:
    """Return the grade of each document that was found, once, in the order of the passages.

    A relevant document is named by its id, its whole source, or the end of the source's path.
    """
    left = dict(case.relevant)
    found = []
    for document, source in dict.fromkeys((one.document_id, one.source) for one in output.passages):
        name = next((name for name in left if _names(name, document, source)), None)
        found.append(max(0.0, left.pop(name)) if name is not None else 0.0)
    return found


def _names(name: str, document: str, source: str) -> bool:
    return name in (document, source) or source.endswith("/" + name.lstrip("/"))
