"""Sequences that several processes share: each has its tokens, and keys and values of all before.

Each process holds an equal stretch of every row. Everything but attention goes token by token and
stays as it is. Attention gathers the keys and values of a layer from all processes and looks at
those up to its own last token, as in section 3.3.2 of https://arxiv.org/abs/2407.21783; on the way
back their gradients are added where they came from. Rows that are only asked, and not learned from,
are computed whole by every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.plugins import require
from training.encoding import IGNORED
from training.sentinel import Aborted

ATTENTION = "ragstone_shared_sequences"
UNKNOWN = ("sliding_window", "s_aux", "softcap", "position_bias", "cache")
"""Of attention that is more than causal: what transformers tells of it."""


class Sharing:
    """Cuts rows into stretches for one training, and has attention see over their ends.

    Args:
        model: whose layers attend through transformers' interface; it is changed.
        group: the mesh of processes that share each sequence.
    """

    def __init__(self, model: Any, group: Any) -> None:
        self._group = group
        self._attended = 0
        transformers = require("transformers", extra="finetune")
        transformers.AttentionInterface.register(ATTENTION, attend)
        model.set_attn_implementation(ATTENTION)
        for module in model.modules():
            module.sharing = self

    @property
    def parts(self) -> int:
        """Processes that share a sequence."""
        return int(self._group.size())

    def own(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tokens of this process, each with the label of the one that follows it.

        Raises:
            Aborted: rows are padded on the left.
        """
        functional = require("torch.nn.functional", extra="finetune")
        torch = require("torch", extra="finetune")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        if not bool(mask[:, 0].all()):
            raise Aborted("Rows are padded on the left; sequences that are shared need it right")
        stretch = -(-ids.shape[1] // self.parts)
        begin = self._group.get_local_rank() * stretch
        following = functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)

        def mine(values: Any, filler: int) -> Any:
            filled = functional.pad(values, (0, stretch * self.parts - ids.shape[1]), value=filler)
            return filled[:, begin : begin + stretch].contiguous()

        places = torch.arange(begin, begin + stretch, device=ids.device)
        return {
            "input_ids": mine(ids, 0),
            "attention_mask": mine(mask, 0),
            "shift_labels": mine(following, IGNORED),
            "position_ids": places.expand(len(ids), -1),
        }

    def check(self) -> None:
        """Refuse a model whose layers do not attend through the interface.

        Raises:
            Aborted: nothing was asked of it since the training began.
        """
        if not self._attended:
            raise Aborted("This model attends in a way of its own; its sequences are not shared")

    def of_all(self, values: Any) -> Any:
        """Return keys or values of whole rows, from stretches `(rows, heads, tokens, size)`."""
        dt = require("torch.distributed.tensor", extra="finetune")
        self._attended += 1
        stretches = dt.DTensor.from_local(values, self._group, [dt.Shard(2)], run_check=False)
        whole = stretches.redistribute(placements=[dt.Replicate()])
        return whole.to_local(grad_placements=[dt.Partial()])

    def up_to_own(self, values: Any, tokens: int) -> Any:
        """Return those of whole sequences that are not after this process's last token."""
        return self.of_all(values)[:, :, : (self._group.get_local_rank() + 1) * tokens]


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    **told: Any,
) -> tuple[Any, None]:
    """Attend causally, as transformers' interface asks; rows are padded at their ends alone.

    Raises:
        Aborted: the model attends to something else.
    """
    del attention_mask
    functional = require("torch.nn.functional", extra="finetune")
    biases = require("torch.nn.attention.bias", extra="finetune")
    if more := [name for name in UNKNOWN if told.get(name) is not None]:
        raise Aborted(f"Attention with {more[0]!r} is not shared; let context be 1")
    tokens = query.shape[2]
    if module.training:
        key, value = (module.sharing.up_to_own(each, tokens) for each in (key, value))
    found = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=biases.causal_lower_right(tokens, key.shape[2]),
        dropout_p=told.get("dropout", 0.0),
        scale=told.get("scaling"),
        enable_gqa=True,
    )
    return found.transpose(1, 2).contiguous(), None
