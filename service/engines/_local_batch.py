"""Sequences that are decoded side by side; they join and leave between any two steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Batch:
    """A batch with one cache: rows are padded on the left to the longest, as they come and go.

    A sequence that joins is read in a batch of its own, whose cache is then put below this one's.
    So joining costs a copy of the cache, and decoding is one call of the model for all rows.
    """

    def __init__(self, forward: Any, *, device: Any, padding: int) -> None:
        """`forward` calls the model, with the row's adapters as its last argument."""
        self._forward = forward
        self._device = device
        self._padding = padding
        self.adapters: list[str] = []
        self._cache: Any = None
        self._mask: Any = None

    def __len__(self) -> int:
        return len(self.adapters)

    def join(self, prompts: Sequence[Sequence[int]], adapters: Sequence[str]) -> Any:
        """Read prompts, put them below the rows there are, return their last logits, row by row."""
        import torch
        from transformers import DynamicCache

        longest = max(map(len, prompts))
        tokens = torch.full((len(prompts), longest), self._padding, device=self._device)
        mask = torch.zeros((len(prompts), longest), dtype=torch.long, device=self._device)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt, device=self._device)
            mask[row, longest - len(prompt) :] = 1
        cache = DynamicCache()
        logits = self._call(tokens, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache, adapters)
        self._merge(cache, mask)
        self.adapters.extend(adapters)
        return logits

    def step(self, tokens: Sequence[int]) -> Any:
        """Append one token to each row; return the logits of the next, row by row."""
        import torch

        column = torch.tensor(tokens, device=self._device)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        positions = self._mask.sum(-1, keepdim=True) - 1
        return self._call(column, self._mask, positions, self._cache, self.adapters)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go, and the columns that were there for them."""
        import torch

        self.adapters = [self.adapters[row] for row in rows]
        if not rows:
            self._cache = self._mask = None
            return
        chosen = torch.tensor(rows, device=self._device)
        self._mask = self._mask[chosen]
        first = int(self._mask.argmax(-1).min())
        self._mask = self._mask[:, first:].contiguous()
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen, :, first:].contiguous()
            layer.values = layer.values[chosen, :, first:].contiguous()

    def _call(
        self, tokens: Any, mask: Any, positions: Any, cache: Any, adapters: Sequence[str]
    ) -> Any:
        output = self._forward(
            adapters,
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _merge(self, cache: Any, mask: Any) -> None:
        import torch
        from torch.nn.functional import pad

        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        width = max(mask.shape[1], self._mask.shape[1])

        def widened(tensor: Any) -> Any:
            return pad(tensor, (0, 0, width - tensor.shape[-2], 0))

        for ours, theirs in zip(self._cache.layers, cache.layers, strict=True):
            ours.keys = torch.cat([widened(ours.keys), widened(theirs.keys)])
            ours.values = torch.cat([widened(ours.values), widened(theirs.values)])
        self._mask = torch.cat(
            [pad(each, (width - each.shape[1], 0)) for each in (self._mask, mask)]
        )
