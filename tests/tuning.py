"""What fine-tuning is tested with: a tiny model whose template marks answers, and rows for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.expectations import yaml_text
from tiny_llm import write_llm

MARKED = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>"
    "{% endgeneration %}{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Renders as the tiny model's own template does, and marks what the assistant writes."""


def write_base(folder: Path, *, template: str = MARKED, text: str = "") -> Path:
    """Write a tiny model whose tokenizer has this template."""
    write_llm(folder, text=text)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    return folder


def chat(question: str, answer: str, *, system: str | None = None) -> dict[str, Any]:
    """Return a row of messages."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


def pair(question: str, better: str, worse: str) -> dict[str, Any]:
    """Return a row of two answers."""
    asked, chosen = chat(question, better)["messages"]
    rejected = {"role": "assistant", "content": worse}
    return {"prompt": [asked], "chosen": [chosen], "rejected": [rejected]}


def sums(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Return rows that differ."""
    return [chat(f"What is {n} plus {n}?", f"It is {n + n}.") for n in range(start, start + count)]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write rows as JSON Lines; text is a line as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_spec(path: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a specification that can be planned beside `write_base` and `write_rows`.

    `changes` are by dotted key; `None` takes a key away.
    """
    values: dict[str, Any] = {
        "version": 1,
        "name": "sums",
        "base": {"model": "base", "dtype": "float32"},
        "data": {"train": {"rows": "train.jsonl"}, "max_length": 64},
        "method": {"adapter": {"type": "lora", "r": 4, "alpha": 8}},
        "schedule": {"rows_per_step": 4, "epochs": 1},
        "runtime": {"device": "cpu"},
    }
    return write_changed(path, values, changes)


def write_changed(path: Path, values: dict[str, Any], changes: Mapping[str, Any] | None) -> Path:
    """Write values as YAML, with changes by dotted key; `None` takes a key away."""
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    path.write_text(yaml_text.write(values), encoding="utf-8")
    return path
