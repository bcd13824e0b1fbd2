"""The parts through which models write answers: prompts, guards, generators, conversations."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from service.model_wiring import ModelParts

if TYPE_CHECKING:
    from infra.artifacts.store import ArtifactStore
    from service.conversations import Conversations
    from service.engines import Engine
    from service.gateway.guarding import Run
    from service.gateway.within import Within
    from service.generating import Generators
    from service.guards import Screen
    from service.prompts import Prompts
    from service.screening import Mode, Screening


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
    def screen(self) -> Screen:
        """Scores questions, passages and chats alike."""
        from service.guards import open_screen

        return open_screen(self.settings.guards.injection_plugin)

    @cached_property
    def screening(self) -> Screening:
        return self._screening(self.settings.guards.injection)

    def _screening(self, mode: Mode) -> Screening:
        from service.screening import Screening

        return Screening(
            None if mode == "off" else self.screen,
            mode=mode,
            threshold=self.settings.guards.injection_threshold,
            count=self.metrics.count_screened,
        )

    @cached_property
    def ask_model(self) -> Run:
        """What answers the calls of models that callers wrote themselves."""
        guards, run = self.settings.guards, self.gateway.run
        if guards.personal_data == "on":
            from service.gateway.masking import MaskedCalls

            run = MaskedCalls(run).run
        if guards.chats != "off":
            from service.gateway.guarding import GuardedCalls

            run = GuardedCalls(run, self._screening(guards.chats)).run
        return run

    @cached_property
    def within(self) -> Within:
        """Asks models from within, on behalf of a request."""
        from service.gateway.within import Within

        return Within(lambda: self.routes.current, lambda call: self.ask_model(call))

    @cached_property
    def generators(self) -> Generators:
        from service.gateway.within import Within
        from service.generating import Generators

        return Generators(
            self.settings,
            engine=lambda: self.engine,
            routes=lambda: self.routes,
            within=Within(lambda: self.routes.current, lambda call: self.gateway.run(call)),
            prompts=self.prompts,
            screening=self.screening,
        )

    @cached_property
    def conversations(self) -> Conversations:
        from service.conversations import Conversations

        return Conversations(self.database, self.settings.conversations)
