"""Chooses the next token of each sequence from the model's logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.engines._local_requests import Sampling

GREEDY_BELOW = 1e-5
"""A temperature below it is 0: logits divided by less are no numbers any more."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token, and how likely it was."""

    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log probabilities, before temperature and penalties."""


class Chooser:
    """Chooses for one sequence; a seed makes it choose the same again."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], *, device: Any) -> None:
        import torch

        self._sampling = sampling
        self._generator = torch.Generator(device=device)
        self._generator.manual_seed(sampling.seed)
        self._seen = set(prompt)
        self._counts: dict[int, int] = {}

    def choose(self, logits: Any) -> Chosen:
        """Choose from a vector of raw logits.

        Raises:
            ValueError: they are no numbers.
        """
        import torch

        logits = logits.float()
        shaped = self._penalised(logits)
        if not bool(shaped.max().isfinite()):  # it is NaN where any of them is
            raise ValueError("The model's output is no numbers")
        if self._sampling.temperature < GREEDY_BELOW:
            token = int(shaped.argmax())
        else:
            weights = _narrowed(shaped / self._sampling.temperature, self._sampling)
            token = int(torch.multinomial(weights, 1, generator=self._generator))
        self._seen.add(token)
        self._counts[token] = self._counts.get(token, 0) + 1
        return self._described(token, logits)

    def _penalised(self, logits: Any) -> Any:
        import torch

        sampling = self._sampling
        changed = logits
        if sampling.repetition_penalty != 1.0 and self._seen:
            seen = torch.tensor(sorted(self._seen), device=logits.device)
            old = logits[seen]
            factor = sampling.repetition_penalty
            changed = changed.clone()
            changed[seen] = torch.where(old > 0, old / factor, old * factor)
        if sampling.frequency_penalty or sampling.presence_penalty:
            changed = _added(
                changed,
                {
                    token: -count * sampling.frequency_penalty - sampling.presence_penalty
                    for token, count in self._counts.items()
                },
            )
        return _added(changed, sampling.logit_bias)

    def _described(self, token: int, logits: Any) -> Chosen:
        if self._sampling.logprobs is None:
            return Chosen(token)
        logprobs = logits.log_softmax(-1)
        top = logprobs.topk(min(self._sampling.logprobs, logprobs.shape[-1]))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Chosen(token, float(logprobs[token]), tuple(pairs))


def _narrowed(logits: Any, sampling: Sampling) -> Any:
    """Return probabilities with those set to 0 that top-k, top-p and min-p leave out."""
    import torch

    weights = logits.softmax(-1)
    if sampling.min_p > 0:
        weights = weights.masked_fill(weights < sampling.min_p * weights.max(), 0.0)
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return weights
    ordered, places = weights.sort(descending=True)
    if sampling.top_k:
        ordered[sampling.top_k :] = 0.0
    if sampling.top_p < 1:
        ordered = ordered / ordered.sum()
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
    return torch.zeros_like(weights).scatter_(0, places, ordered)


def _added(logits: Any, changes: Mapping[int, float]) -> Any:
    import torch

    known = {token: change for token, change in changes.items() if token < logits.shape[-1]}
    if not known:
        return logits
    changed = logits.clone()
    changed[torch.tensor(list(known), device=logits.device)] += torch.tensor(
        list(known.values()), device=logits.device
    )
    return changed
