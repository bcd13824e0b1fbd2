"""The head of a model of rewards: one number for a text, in place of the next token."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from infra.plugins import require


def without_its_warning() -> AbstractContextManager[None]:
    """Not be told that a language model has no such head: it is about to get one."""
    module = require("trl.trainer.reward_trainer", extra="finetune")
    return cast("AbstractContextManager[None]", module.suppress_seqcls_warning())


def begin(model: Any, folder: Path) -> None:
    """Have every text begin with the reward 0, read at its last token before any padding."""
    transformers = require("transformers", extra="finetune")
    torch = require("torch", extra="finetune")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    pad = tokenizer.pad_token_id
    model.config.get_text_config().pad_token_id = tokenizer.eos_token_id if pad is None else pad
    with torch.no_grad():
        model.score.weight.zero_()
