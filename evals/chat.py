"""Asks a judge: one question to any server that speaks OpenAI's chat completions, remembered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from evals.memory import Memory
from infra.errors import EngineFailed, InvalidConfiguration, RagstoneError

URL_VARIABLE = "JUDGE_URL"
KEY_VARIABLE = "JUDGE_API_KEY"


class JudgeRefused(RagstoneError):
    """The judge declined to judge."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A judge's address and what decides its answers."""

    model: str
    url: str = ""
    """Up to `/v1`; that of the environment's `JUDGE_URL` if empty."""
    key_variable: str = KEY_VARIABLE
    """The environment variable that holds the key, which may be absent."""
    temperature: float = 0.0
    max_tokens: int = 2048

    async def ask(
        self, prompt: str, schema: Mapping[str, Any], memory: Memory, *, seed: int = 0
    ) -> str:
        """Return what the judge answered, which should be JSON of the schema.

        The same question with the same seed is asked once; the address is no part of it, so that
        a run can be repeated without the server.

        Raises:
            JudgeRefused: it says so, or its server withheld the answer.
            InvalidConfiguration: no model or no address is given.
            EngineFailed: the server cannot be reached or failed, or the answer was cut off.
        """
        if not self.model:
            raise InvalidConfiguration("No judge is named; give the metric a `model`")
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": seed,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "judgement", "schema": dict(schema)},
            },
        }
        choice = await memory.recall(body, lambda: self._post(body))
        message, ended = choice["message"], choice["finish_reason"]
        if message.get("refusal") or ended == "content_filter":
            raise JudgeRefused(str(message.get("refusal") or "the server withheld the answer"))
        if ended == "length":
            raise EngineFailed(f"The judge was cut off after {self.max_tokens} tokens")
        return str(message.get("content") or "")

    async def _post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        address = self.url or os.environ.get(URL_VARIABLE, "")
        if not address:
            raise InvalidConfiguration(
                f"No address of a judge is given; set {URL_VARIABLE} or the metric's `url`"
            )
        key = os.environ.get(self.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(f"{address.rstrip('/')}/chat/completions", json=body) as response,
            ):
                if response.status != 200:
                    said = (await response.text())[:200]
                    raise EngineFailed(f"The judge answered {response.status}: {said}")
                return _choice(await response.json())
        except (aiohttp.ClientError, ValueError) as error:
            raise EngineFailed(f"The judge at {address!r} failed: {error}") from error


def _choice(answer: Any) -> dict[str, Any]:
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        return {
            "message": {name: message.get(name) for name in ("content", "refusal")},
            "finish_reason": choice.get("finish_reason"),
        }
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise EngineFailed(f"The judge sent no chat completion: {str(answer)[:200]!r}") from error
