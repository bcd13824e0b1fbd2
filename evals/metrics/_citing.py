"""Which citations hold: the stored text stands at their span, and their words carry the claim."""

from __future__ import annotations

from typing import ClassVar

from anyio import to_thread
from pydantic import Field

from evals.context import Context
from evals.metric import Parameters
from evals.trial import Output
from infra.contracts import Citation


class Citing(Parameters):
    """A metric of citations."""

    version: ClassVar[int] = 2

    min_overlap: float = Field(default=0.5, gt=0, le=1)
    """The least share of a claim's words that the cited text must hold."""


async def holding(output: Output, context: Context) -> list[Citation]:
    """Return the citations whose text is what is stored at their span.

    Where the stored text cannot be read, the passages that were found are looked at.
    """
    return [each for each in output.citations if await _stands(each, output, context)]


async def _stands(citation: Citation, output: Output, context: Context) -> bool:
    start, end = citation.start_char, citation.end_char
    if not citation.text.strip() or not 0 <= start < end:
        return False
    document = citation.document_id, citation.document_version
    if context.read_text is not None:
        stored = await to_thread.run_sync(context.read_text, *document, start, end)
        return stored == citation.text
    return any(
        (passage.document_id, passage.document_version) == document
        and passage.start_char <= start
        and end <= passage.end_char
        and passage.text[start - passage.start_char : end - passage.start_char] == citation.text
        for passage in output.passages
    )
