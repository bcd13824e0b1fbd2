"""Writes a random BERT of a few kilobytes in a folder, as sentence-transformers would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "stone",
    "tower",
    "raven",
    "king",
    "wall",
    ":",
    "query",
]
HIDDEN, LAYERS, HEADS, POSITIONS = 16, 2, 4, 24


def write_model(folder: Path, *, pooling: str = "mean", prompts: Any = None, **changes: Any) -> str:
    """Write a random BERT of a few kilobytes as sentence-transformers would."""
    from safetensors.numpy import save_file

    config = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 32,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": POSITIONS,
        "vocab_size": len(WORDS), "type_vocab_size": 2, "pad_token_id": 0,
    } | changes  # fmt: skip
    (folder / "1_Pooling").mkdir(parents=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    flag = f"pooling_mode_{pooling}_token{'' if pooling == 'cls' else 's'}"
    write = {
        "config.json": config,
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": POSITIONS - 4, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": prompts or {}},
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, flag: True},
        "tokenizer_config.json": {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": POSITIONS,
        },
    }
    for name, value in write.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    write_tokenizer(folder / "tokenizer.json")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    save_file(random_weights(), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def write_tokenizer(path: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[arg-type]
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    tokenizer.save(str(path))


def random_weights() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    chance = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        for name, shape in {
            **{f"attention.self.{part}": (HIDDEN, HIDDEN) for part in ("query", "key", "value")},
            "attention.output.dense": (HIDDEN, HIDDEN),
            "intermediate.dense": (32, HIDDEN),
            "output.dense": (HIDDEN, 32),
        }.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (HIDDEN,)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (HIDDEN,)
    return {
        name: chance.normal(1.0 if "Norm.weight" in name else 0.0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
