"""The parts through which models write answers: prompts, guards, generators, conversations."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from service.model_wiring import ModelParts

if TYPE_CHECKING:
    from infra.artifacts.store import ArtifactStore
    from service.conversations import Conversations
    from service.engines import Engine
    from service.generating import Generators
    from service.prompts import Prompts
    from service.screening import Screening


class WritingParts(ModelParts):
    """What stands between questions and the models that answer them."""

    if TYPE_CHECKING:

        @cached_property
        def artifacts(self) -> ArtifactStore: ...

        @cached_property
        def engine(self) -> Engine: ...

    @cached_property
    def prompts(self) -> Prompts:
        from service.prompts import Prompts

        return Prompts(lambda: self.artifacts)

    @cached_property
    def screening(self) -> Screening:
        from service.guards import open_screen
        from service.screening import Screening

        guards = self.settings.guards
        return Screening(
            None if guards.injection == "off" else open_screen(guards.injection_plugin),
            mode=guards.injection,
            threshold=guards.injection_threshold,
            count=self.metrics.count_screened,
        )

    @cached_property
    def generators(self) -> Generators:
        from service.generating import Generators

        generators = Generators(
            self.settings,
            engine=lambda: self.engine,
            routes=lambda: self.routes,
            within=self.within,
            prompts=self.prompts,
            screening=self.screening,
        )
        generators.check()
        return generators

    @cached_property
    def conversations(self) -> Conversations:
        from service.conversations import Conversations

        return Conversations(self.database, self.settings.conversations)
