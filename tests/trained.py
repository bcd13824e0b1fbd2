"""A fine-tuning that takes seconds: a calm tiny model, and rows that all have one answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tuning import chat, pair, write_base, write_rows, write_spec

ROOT = Path(__file__).parent.parent
ANSWER = "ZZZ"
WORSE = "QQ"
CALM = 0.25
"""Of the length of the head's rows: before training nothing is certain, as with a real model."""
SCHEDULE = {
    "schedule.epochs": None,
    "schedule.steps": 24,
    "schedule.rows_per_step": 8,
    "schedule.learning_rate": 0.02,
    "schedule.log_every_steps": 1,
    "method.adapter": {"type": "lora", "r": 8, "alpha": 16},
}
only_third_parties_warn = [
    pytest.mark.filterwarnings(f"ignore:::{package}")
    for package in ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "jinja2")
]


def write_task(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a base, rows that teach it to say `ANSWER`, and a specification; return its path."""
    if not (folder / "base").exists():
        calm(write_base(folder / "base"))
        write_rows(folder / "train.jsonl", [chat(f"Question {n}?", ANSWER) for n in range(64)])
        write_rows(folder / "eval.jsonl", [chat(f"Query {n}?", ANSWER) for n in range(8)])
    return write_spec(folder / "spec.yaml", {**SCHEDULE, **(changes or {})})


def write_shared(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the same with heads that two processes can share, and a last row held out alone."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    spec, path = write_task(folder, changes), folder / "base" / "model.safetensors"
    config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    if config["num_key_value_heads"] == 1:
        written = json.dumps({**config, "num_key_value_heads": 2})
        (path.parent / "config.json").write_text(written, encoding="utf-8")
        weights = load_file(path)
        for name in [name for name in weights if name.endswith(("k_proj.weight", "v_proj.weight"))]:
            weights[name] = np.concatenate([weights[name], weights[name][::-1]])
        save_file(weights, path, metadata={"format": "pt"})
        odd = chat("And what else?", "Something else entirely")
        write_rows(folder / "eval.jsonl", [*(chat(f"Query {n}?", ANSWER) for n in range(6)), odd])
    return spec


def write_preferences(folder: Path, method: str, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the same for a method that compares answers: `ANSWER` is better than `WORSE`."""
    spec = write_task(folder, {"method.type": method, "schedule.steps": 12, **(changes or {})})
    for name, asks in (("train", "Question"), ("eval", "Query")):
        questions = [f"{asks} {n}?" for n in range(32 if name == "train" else 4)]
        rows = [row for each in questions for row in _compared(method, each)]
        write_rows(folder / f"{name}.jsonl", rows)
    return spec


def _compared(method: str, question: str) -> list[dict[str, Any]]:
    if method != "kto":
        return [pair(question, ANSWER, WORSE)]
    return [
        {"prompt": [asked], "completion": [said], "label": answer == ANSWER}
        for answer in (ANSWER, WORSE)
        for asked, said in [chat(question, answer)["messages"]]
    ]


def calm(base: Path) -> Path:
    """Make a tiny model's head quiet."""
    from safetensors.numpy import load_file, save_file

    path = base / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"] *= CALM
    save_file(weights, path, metadata={"format": "pt"})
    return base


@contextmanager
def planted(monkeypatch: pytest.MonkeyPatch, *, step: int, value: float) -> Iterator[None]:
    """Have the hidden states of one training step multiplied by a value, such as NaN."""
    from training import adapted_model

    attach = adapted_model.attach

    def attach_with_fault(*arguments: Any, **options: Any) -> Any:
        model = attach(*arguments, **options)
        seen = 0

        def fault(module: Any, _: Any, output: Any) -> Any:
            nonlocal seen
            if not module.training:
                return output
            seen += 1
            return output * value if seen == step else output

        model.get_input_embeddings().register_forward_hook(fault)
        return model

    with monkeypatch.context() as patch:
        patch.setattr(adapted_model, "attach", attach_with_fault)
        yield


def ragstone(
    *words: str,
    data: Path,
    limit_kilobytes: int | None = None,
    launch: tuple[str, ...] = (),
    **environment: str,
) -> subprocess.Popen[str]:
    """Start the command line, with no file growing past a limit."""
    program = [*(launch or (sys.executable, "-c", "from service.cli import main; main()")), *words]
    if limit_kilobytes is not None:
        program = ["bash", "-c", f'ulimit -f {limit_kilobytes}; exec "$@"', "bash", *program]
    return subprocess.Popen(
        program,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAGSTONE_DATA_FOLDER": str(data),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


Runner = Callable[..., Any]
