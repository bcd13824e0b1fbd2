"""Who writes an answer: the model of a route, with the engine of the settings behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from infra.errors import InvalidConfiguration, InvalidRequest, NotFound, RagstoneError
from infra.gateway_settings import Gateway
from infra.settings import Settings
from service.answering import Admit, Rewrite
from service.callers import Caller
from service.deadlines import NEVER, Deadline
from service.engines import Engine
from service.gateway.reloading import Tables
from service.gateway.routing import Route
from service.gateway.within import Within
from service.generation.chat import ChatModel, Message, ServedChat
from service.generation.engine import Generative
from service.generation.fallback import Fallback
from service.generation.rewriting import Rewriter
from service.generation.routed import Asker, RoutedChat
from service.generation.sources import new_secret
from service.prompts import Prompts
from service.screening import Screening

logger = logging.getLogger(__name__)

COUNT_SECONDS = 2.0
"""For a server to count the tokens of a prompt; then they are estimated."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The engine of one answer, and what makes its question one that can be searched for."""

    engine: Engine
    rewrite: Rewrite | None = None
    admit: Admit | None = None
    """Refuses questions that would instruct a model."""
    is_billed_by_gateway: bool = False
    """A model of a route writes: limits and costs are the gateway's matter."""


class Generators:
    """Chooses the engine of each answer, for its caller."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Callable[[], Engine],
        routes: Callable[[], Tables],
        within: Within,
        prompts: Prompts,
        screening: Screening,
    ) -> None:
        """Take the parts.

        Args:
            settings: name the model and the engine.
            engine: the one that needs no model.
            routes: of the gateway, as they are now.
            within: the gateway, for what is asked here and not by a caller.
            prompts: templates in force.
            screening: keeps instructions out of prompts.
        """
        self._settings = settings
        self._engine = engine
        self._routes = routes
        self._within = within
        self._prompts = prompts
        self._screening = screening
        self._secret = new_secret()

    def choose(
        self,
        wanted: str | None,
        caller: Caller,
        *,
        quoted: Sequence[str] = (),
        deadline: Deadline = NEVER,
    ) -> Chosen:
        """Return who answers: what was asked for, or what the settings say.

        The model of the settings is the service's: whoever may ask has it answer.

        Args:
            wanted: the model or engine, if one was named.
            caller: who asks.
            quoted: public ids of the documents that what was said before may quote.
            deadline: told to the servers of a route, which are asked for no longer.

        Raises:
            NotFound: there is no such model, or it is not the caller's.
            InvalidRequest: the model does not chat.
        """
        settings = self._settings.generation
        if wanted == settings.engine:
            return Chosen(self._engine())
        if wanted is not None:
            asker = Asker(caller, quoted, deadline)
            return self._by(self.model(self._route(wanted, caller), asker))
        if settings.model is None:
            return Chosen(self._engine())
        route = self._routes().current.find(settings.model)
        as_service = replace(caller, models=None, scopes=caller.scopes | {"models"})
        return self._by(self.model(route, Asker(as_service, quoted, deadline)))

    def model(self, route: Route, asker: Asker) -> ChatModel:
        """Return a route as a chat model that is asked in a caller's name."""
        return RoutedChat(
            route.name,
            self._within,
            asker=asker,
            count=partial(self._count, route.name),
            context_tokens=route.settings.context_tokens,
        )

    async def _count(self, name: str, messages: Sequence[Message]) -> int | None:
        """Have a server of a route count; that needs no place in the queue and costs nothing."""
        route = self._routes().current.routes.get(name)
        if route is None:  # a reload took it away
            return None
        target = max(route.targets, key=lambda target: target.weight)
        for replica in target.upstream.replicas:
            model = target.name_at(replica)
            if model is not None:
                served = ServedChat(replica.server, model, timeout_seconds=COUNT_SECONDS)
                return await served.count(messages)
        return None

    def _by(self, model: ChatModel) -> Chosen:
        engine = Fallback([self._generative(model), self._engine()], note=_note)
        if not self._settings.generation.rewrite_questions:
            return Chosen(engine, admit=self._screening.admit, is_billed_by_gateway=True)
        rewriter = Rewriter(
            model,
            template=lambda: self._prompts.current("rewrite"),
            max_characters=self._settings.server.max_question_characters,
        )
        return Chosen(engine, rewriter, self._screening.admit, is_billed_by_gateway=True)

    def _generative(self, model: ChatModel) -> Generative:
        return Generative(
            model,
            template=lambda: self._prompts.current("answer"),
            screening=self._screening,
            secret=self._secret,
        )

    def _route(self, name: str, caller: Caller) -> Route:
        table = self._routes().current
        if not table.is_open(name, caller):
            raise NotFound("model", name[:200], among=table.names(caller))
        caller.require("models")
        route = table.routes[name]
        if route.settings.kind != "chat":
            raise InvalidRequest(
                f"{name!r} is for {route.settings.kind}; choose a model that chats",
                parameter="generator",
            )
        return route


def check(model: str | None, gateway: Gateway) -> None:
    """Refuse settings whose `generation.model` there is not.

    Raises:
        InvalidConfiguration: no route of the gateway has the name, or it does not chat.
    """
    if model is None:
        return
    route = gateway.routes.get(model)
    if route is None:
        known = ", ".join(gateway.routes) or "none"
        raise InvalidConfiguration(
            f"generation.model is {model!r}, which is no route of the gateway; there are {known}"
        )
    if route.kind != "chat":
        raise InvalidConfiguration(
            f"generation.model is {model!r}, a route for {route.kind}; choose one that chats"
        )


def _note(name: str, error: RagstoneError) -> None:
    logger.warning("%r did not answer, so the next engine does: %s", name, error.message)
