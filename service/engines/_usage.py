"""What a prompt and its answer cost, for engines without a tokenizer of their own."""

from __future__ import annotations

from infra.contracts import Embedder, Usage
from service.engines import Prompt, count_tokens


def measure_usage(embedder: Embedder, prompt: Prompt, answer: str) -> Usage:
    """Count the question, what was said before and the passages against the answer."""
    read = [
        prompt.question,
        *(turn.content for turn in prompt.history),
        *(passage.text for passage in prompt.passages),
    ]
    return Usage(count_tokens(embedder, read), count_tokens(embedder, [answer]))
