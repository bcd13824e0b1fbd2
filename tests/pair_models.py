"""Random transformers of a few kilobytes that read pairs, in folders as the hub has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_model import WORDS, write_tokenizer

POSITIONS = 48


def write_pair_model(folder: Path, head: str, labels: Sequence[str]) -> str:
    """Write a random BERT with a head of transformers; returns its folder."""
    import torch
    import transformers

    torch.manual_seed(7)
    is_modern = head.startswith("ModernBert")
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = (transformers.ModernBertConfig if is_modern else transformers.BertConfig)(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
        initializer_range=0.5,
        **({**special, "cls_token_id": 0, "sep_token_id": 0} if is_modern else {}),
    )
    model: Any = getattr(transformers, head)(config)
    model.save_pretrained(folder)
    write_tokenizer(folder / "tokenizer.json")
    about: dict[str, Any] = {"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS}
    if is_modern:
        about["model_input_names"] = ["input_ids", "attention_mask"]
        about["pad_token"] = "[PAD]"
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return str(folder)
