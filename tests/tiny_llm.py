"""Writes a random Llama of half a megabyte with its own tokenizer, and adapters that show."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

Weights = dict[str, NDArray[np.float32]]

HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD, MIDDLE = 64, 2, 2, 1, 32, 128
VOCABULARY = 384
CONTEXT = 2048
RANK = 4
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
END = SPECIAL[0]
SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
"""What adapters may say: each is one token."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LOUD = 4.0
"""Length of a token's row of the head: what a hidden state points at is all but certain."""


def write_llm(folder: Path, *, seed: int = 0, text: str = "") -> Path:
    """Write the model; its weights depend on `seed` alone, its tokenizer on `text`."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    tokenizer = _train(text)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS, "head_dim": HEAD, "intermediate_size": MIDDLE,
        "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "attention_bias": False, "mlp_bias": False, "eos_token_id": end, "pad_token_id": end,
        "bos_token_id": None,
    }  # fmt: skip
    written: dict[str, Any] = {
        "config.json": config,
        "generation_config.json": {"eos_token_id": end, "pad_token_id": end},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END,
            "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    }  # fmt: skip
    for name, value in written.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    save_file(weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_adapter(
    folder: Path, base: Path, sign: str, *, rank: int = RANK, base_name: str | None = None
) -> Path:
    """Write a LoRA adapter that makes the model of `base` say `sign` over and over.

    Dimension 0 of every token is the same, and the values of the attention carry it on, so that
    what reaches the last projection is known; the adapter turns it into the direction of `sign`.
    """
    from safetensors.numpy import load_file, save_file

    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    head = load_file(base / "model.safetensors")["lm_head.weight"]
    down = np.zeros((rank, HEADS * HEAD), np.float32)
    down[0, 0] = 1.0
    up = np.zeros((HIDDEN, rank), np.float32)
    up[:, 0] = 1000.0 * head[tokenizer.token_to_id(sign)]
    written: Weights = {}
    for layer in range(LAYERS):
        module = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        is_last = layer == LAYERS - 1
        written[f"{module}.lora_A.weight"] = down
        written[f"{module}.lora_B.weight"] = up if is_last else np.zeros_like(up)
    save_file(written, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank,
        "lora_dropout": 0.0, "bias": "none", "target_modules": ["o_proj"],
        "base_model_name_or_path": base_name or str(base), "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def weights(seed: int) -> Weights:
    chance = np.random.default_rng(seed)

    def random(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        values = chance.normal(0.0, scale / math.sqrt(shape[-1]), shape)
        return values.astype(np.float32)

    embeddings = random(VOCABULARY, HIDDEN, scale=4.0)
    embeddings[:, 0] = 2.0
    head = random(VOCABULARY, HIDDEN)
    head *= LOUD / np.linalg.norm(head, axis=1, keepdims=True)
    made: Weights = {
        "model.embed_tokens.weight": embeddings,
        "lm_head.weight": head,
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        values = random(KEY_VALUE_HEADS * HEAD, HIDDEN)
        values[0] = 0.0
        values[0, 0] = 1.0
        made |= {
            f"{name}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{name}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{name}.self_attn.q_proj.weight": random(HEADS * HEAD, HIDDEN),
            f"{name}.self_attn.k_proj.weight": random(KEY_VALUE_HEADS * HEAD, HIDDEN),
            f"{name}.self_attn.v_proj.weight": values,
            f"{name}.self_attn.o_proj.weight": random(HIDDEN, HEADS * HEAD),
            f"{name}.mlp.gate_proj.weight": random(MIDDLE, HIDDEN),
            f"{name}.mlp.up_proj.weight": random(MIDDLE, HIDDEN),
            f"{name}.mlp.down_proj.weight": random(HIDDEN, MIDDLE),
        }
        # What a layer adds leaves dimension 0 as the embedding has it.
        made[f"{name}.self_attn.o_proj.weight"][0] = 0.0
        made[f"{name}.mlp.down_proj.weight"][0] = 0.0
    return made


def _train(text: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines() or [""], trainer)
    return tokenizer
