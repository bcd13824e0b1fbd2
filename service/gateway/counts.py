"""What calls used and what they are charged to: the words that journal and database share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

AccountId: TypeAlias = tuple[str, str]
"""A budget's id, and the day, month or whole that is meant."""
UsageId: TypeAlias = tuple[str, str, str, str]
"""Day, key, model, tenant."""


@dataclass(slots=True)
class Count:
    """What calls of one key and model used in a day."""

    requests: int = 0
    interrupted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0

    def add(self, other: Count) -> None:
        self.requests += other.requests
        self.interrupted += other.interrupted
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cost += other.cost
