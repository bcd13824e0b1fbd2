"""The preflight of a fine-tuning: all checks over 100,000 rows, in seconds and memory."""

from __future__ import annotations

import json
import random
import resource
import time
from pathlib import Path

from benchmarks.options import Options
from benchmarks.table import Bar, Row, Spread
from training import planning, spec

ROWS = 100_000
HELD_OUT = 1_000
BAR = Bar(60.0, at_least=False)
VOCABULARY = 32_000
QUESTION_WORDS = 30
ANSWER_WORDS = 120
SEED = 7
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>"
    "{% endgeneration %}{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def run(options: Options) -> list[Row]:
    """Plan a fine-tuning of a model of half a billion weights, which are not there."""
    rows = ROWS // 100 if options.quick else ROWS
    words = _words()
    options.say("writing the model's description and the rows")
    write_base(options.folder / "base", words)
    chance = random.Random(SEED)
    write_rows(options.folder / "train.jsonl", words, chance, count=rows)
    held_out = min(HELD_OUT, rows // 10)
    write_rows(options.folder / "eval.jsonl", words, chance, count=held_out)
    asked = spec.parse(_specification())
    options.say(f"planning over {rows:,} rows")
    started, used = time.perf_counter(), time.process_time()
    found = planning.plan(asked, planning.Places(options.folder, None, None, Path))
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    found.require_sound()
    tokens = found.lock.lengths["data.train"]["tokens"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    note = f"{rows:,} rows of {tokens / rows:.0f} tokens on average, {held_out:,} held out"
    return [
        Row(
            "preflight of all rows",
            Spread((seconds,)),
            unit="s",
            bar=None if options.quick else BAR,
            note=note,
        ),
        Row("time of processors", Spread((processor,)), unit="s"),
        Row("memory at the peak", Spread((peak,)), unit="MiB"),
    ]


def _words() -> list[str]:
    pages = sorted((Path(__file__).parent.parent / "docs").rglob("*.md"))
    return [word for page in pages for word in page.read_text(encoding="utf-8").split()]


def write_base(folder: Path, words: list[str]) -> None:
    """Write a model's description and a tokenizer of these words, without weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 896,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 4864, "vocab_size": VOCABULARY, "max_position_embeddings": 32_768,
    }  # fmt: skip
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0],
        "pad_token": SPECIAL[0], "chat_template": TEMPLATE,
    }  # fmt: skip
    for name, values in {"config.json": config, "tokenizer_config.json": settings}.items():
        (folder / name).write_text(json.dumps(values), encoding="utf-8")


def write_rows(
    path: Path,
    words: list[str],
    chance: random.Random,
    *,
    count: int,
    answer_words: int = ANSWER_WORDS,
) -> None:
    """Write conversations of random words."""
    plain = [word for word in words if not any(token in word for token in SPECIAL)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            question = " ".join(chance.choices(plain, k=QUESTION_WORDS))
            answer = " ".join(chance.choices(plain, k=answer_words))
            messages = [
                {"role": "system", "content": "You answer questions about Ragstone."},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def _specification() -> dict[str, object]:
    return {
        "name": "benchmark",
        "base": {"model": "half-a-billion", "described_by": "base"},
        "data": {"train": {"rows": "train.jsonl"}, "eval": {"rows": "eval.jsonl"}},
        "schedule": {"tokens_per_step": 65_536, "epochs": 1},
        "runtime": {"launcher": "slurm", "accelerator": "h100-80gb"},
    }
