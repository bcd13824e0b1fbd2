"""What all metrics with a judge share: which model, where it is, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from evals.judges.question import Question
from evals.metric import Parameters


class Judged(Parameters):
    """The judge's parameters."""

    asks_server: ClassVar[bool] = True

    model: str = ""
    """What its server calls it."""
    url: str = ""
    """Of its server, without `/v1`; the environment's `JUDGE_URL` if absent."""
    key_variable: str = "JUDGE_API_KEY"
    """The environment variable with the key, if it wants one."""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=2048, ge=1)
    judge_seconds: float = Field(default=60.0, gt=0)
    """For one answer of the judge, retries included."""

    def question(
        self,
        messages: Sequence[Mapping[str, str]],
        schema: Mapping[str, Any],
        *,
        seed: int,
        is_strict: bool = False,
    ) -> Question:
        """Return what the judge is asked."""
        return Question(
            self.model,
            messages,
            schema,
            seed=seed,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            is_strict=is_strict,
            url=self.url,
            key_variable=self.key_variable,
            timeout_seconds=self.judge_seconds,
        )
