"""The parts that remove documents for good: from the stores, and from whatever quotes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, cast

from infra.database.quoting import removed
from retrieval.quotes import Quotes
from service.answer_wiring import WritingParts

if TYPE_CHECKING:
    from retrieval.builds import Builds
    from retrieval.compaction import Compactor
    from retrieval.erasure import Erasure
    from retrieval.files import Files
    from retrieval.quotes import Eraser
    from retrieval.view import Views
    from service.gateway.cache import RepeatedCalls
    from service.responses.repeating import RepeatedResponses
    from service.wiring import Components


class ErasureParts(WritingParts):
    """What erases, and what it erases from."""

    on_step: Callable[[str], object]

    if TYPE_CHECKING:

        @cached_property
        def files(self) -> Files: ...

        @cached_property
        def views(self) -> Views: ...

        @cached_property
        def builds(self) -> Builds: ...

    @cached_property
    def erasers(self) -> Mapping[str, Eraser]:
        """Whatever keeps words of documents elsewhere, by the name that receipts count it under."""
        return {
            "interactions": lambda ids: self.interactions.erase_content(ids),
            "responses": lambda ids: self.responses.erase(ids),
            "conversations": lambda ids: self.conversations.erase(ids),
            "cached answers": self.forget_answers,
            "tunings": lambda _: self._forget_tunings(),
        }

    def _forget_tunings(self) -> int:
        if not (self.settings.data_folder / "tuning").is_dir():
            return 0
        from service.retrieval_tuning.forgetting import forget

        return forget(cast("Components", self))

    def forget_answers(self, documents: Collection[str]) -> int:
        """Drop every answer in memory that may quote one of these documents; returns how many."""
        return sum(memory.forget(documents) for memory in self._answers_in_memory)

    def forget_removed_answers(self) -> int:
        """Do the same for all documents that are gone, whichever process removed them."""
        quoted = set().union(*(memory.documents() for memory in self._answers_in_memory))
        gone = removed(self.database, quoted)
        return self.forget_answers(gone) if gone else 0

    @property
    def _answers_in_memory(self) -> list[RepeatedCalls | RepeatedResponses]:
        made = vars(self)
        return [made[part] for part in ("gateway", "repeated_responses") if part in made]

    @cached_property
    def quotes(self) -> Quotes:
        return Quotes(self.database, self.erasers)

    @cached_property
    def erasure(self) -> Erasure:
        from retrieval.erasure import Erasure

        return Erasure(self.database, self.files, quotes=self.quotes, on_step=self.on_step)

    @cached_property
    def compactor(self) -> Compactor:
        from retrieval.compaction import Compactor

        return Compactor(
            self.database,
            views=self.views,
            builds=self.builds,
            files=self.files,
            erasure=self.erasure,
            on_step=self.on_step,
        )
