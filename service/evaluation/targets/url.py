"""Any server that speaks OpenAI's chat completions, as the target of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evals.target_kinds import UrlTarget
from evals.trial import Case, Output
from infra.addresses import shown
from infra.errors import InvalidConfiguration
from service.engines import ServerContext, open_server
from service.evaluation.targets._chats import body_of, output_of
from service.generation.chat import ServedChat

if TYPE_CHECKING:
    from service.wiring import Components


class ServedAnswers:
    parents: Sequence[tuple[str, str]] = ()

    def __init__(self, kind: UrlTarget) -> None:
        key = None
        if kind.key_variable is not None:
            key = os.environ.get(kind.key_variable)
            if not key:
                raise InvalidConfiguration(
                    f"The variable {kind.key_variable!r} is not set; it holds the key of "
                    f"{shown(kind.url)}"
                )
        self._kind = kind
        self._server = open_server("openai_http", ServerContext(kind.url, key))
        self._chat = ServedChat(self._server, kind.model)
        self.identity: Mapping[str, Any] = kind.model_dump(mode="json")

    async def __call__(self, case: Case, *, seed: int) -> Output:
        body = body_of(self._kind, case, seed)
        return await output_of(self._kind, self._chat.complete(body))

    async def close(self) -> None:
        await self._server.close()


def build(kind: UrlTarget, parts: Components) -> ServedAnswers:
    del parts
    return ServedAnswers(kind)
