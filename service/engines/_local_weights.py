"""A model of transformers with its tokenizer, and adapters of peft that rows choose between."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.errors import InvalidConfiguration, InvalidRequest
from infra.plugins import require

EXTRA = "transformers"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BASE = "__base__"
"""What peft calls a row without an adapter."""


class Weights:
    """Used from one thread."""

    def __init__(self, model: str, *, device: str, dtype: str, chat_template: str = "") -> None:
        """Load a model from a folder or the hub; `chat_template` names a file, if another is used.

        Raises:
            InvalidConfiguration: it cannot be loaded, or is of a kind that cannot be batched.
            MissingDependency: transformers is not installed.
        """
        torch = require("torch", extra=EXTRA)
        transformers = require("transformers", extra=EXTRA)
        safetensors = require("safetensors", extra=EXTRA)
        transformers.utils.logging.disable_progress_bar()
        on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if on_gpu else "cpu")
        chosen = ("bfloat16" if on_gpu else "float32") if dtype == "auto" else dtype
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
            if chat_template:
                self.tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
            self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                model, dtype=getattr(torch, chosen), use_safetensors=True
            )
        except (OSError, ValueError, AttributeError, safetensors.SafetensorError) as error:
            raise InvalidConfiguration(f"The model {model!r} cannot be loaded: {error}") from error
        self._model.to(self.device).eval()
        self._base: dict[str, Any] = self._model.state_dict()  # by its own names, no copies
        kinds = set(getattr(self._model.config, "layer_types", None) or ["full_attention"])
        if not kinds <= {"full_attention", "sliding_attention"}:
            raise InvalidConfiguration(
                f"The model {model!r} has layers of {', '.join(sorted(kinds))}; only those with "
                "attention can be batched here: serve it with vLLM"
            )
        self._tuned: Any = None
        self._keys: dict[str, str] = {}
        self._spare: str | None = None
        self._numbers = itertools.count()

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt and answer together."""
        return int(getattr(self._model.config, "max_position_embeddings", None) or 2048)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Any of them ends an answer."""
        ends = self._model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        return frozenset(end for end in [*listed, self.tokenizer.eos_token_id] if end is not None)

    @property
    def padding(self) -> int:
        padding = self.tokenizer.pad_token_id
        return int(padding if padding is not None else next(iter(self.end_tokens), 0))

    @property
    def vocabulary(self) -> int:
        return int(self._model.config.vocab_size)

    def forward(self, adapters: Sequence[str], **inputs: Any) -> Any:
        """Call the model; row by row with an adapter, or with none where its name is empty."""
        import torch

        with torch.inference_mode():
            if self._tuned is None or not any(adapters):
                return self._plain(**inputs)
            names = [self._keys[name] if name else BASE for name in adapters]
            return self._tuned(adapter_names=names, **inputs)

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter.

        Raises:
            InvalidRequest: it is no adapter of this model.
            MissingDependency: peft is not installed.
        """
        if name in self._keys:
            return
        peft = require("peft", extra=EXTRA)
        if not (folder / WEIGHTS).is_file():  # peft would take a pickle in its place
            raise InvalidRequest(f"{str(folder)!r} holds no {WEIGHTS}")
        stored = self._read_names(name, folder)  # peft changes the model before it reads them
        key = f"adapter{next(self._numbers)}"
        try:
            if self._tuned is None:
                self._tuned = peft.PeftModel.from_pretrained(
                    self._model, str(folder), adapter_name=key
                )
            else:
                self._tuned.load_adapter(str(folder), adapter_name=key)
        except (ValueError, KeyError, RuntimeError, OSError, TypeError) as error:
            raise InvalidRequest(f"The adapter {name!r} cannot be loaded: {error}") from error
        self._tuned.eval()
        self._keys[name] = key
        if self._spare is not None:
            self._drop(self._spare)
            self._spare = None
        try:
            self._require_whole(name, stored)
        except InvalidRequest:
            self.unload(name)
            raise

    def unload(self, name: str) -> None:
        """Free an adapter that no row uses; the last one when the next is loaded."""
        key = self._keys.pop(name, None)
        if key is None:
            return
        if self._keys:
            self._drop(key)
        else:
            self._spare = key

    def _drop(self, key: str) -> None:
        # peft keeps one adapter active, which rows that name theirs do not care about.
        self._tuned.set_adapter(next(iter(self._keys.values())), inference_mode=True)
        self._tuned.delete_adapter(key)

    def _read_names(self, name: str, folder: Path) -> frozenset[str]:
        """Return the names of an adapter's weights, without those of the base that came along."""
        import torch

        safetensors = require("safetensors", extra=EXTRA)
        try:
            kept = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("modules_to_save")
            with safetensors.safe_open(str(folder / WEIGHTS), framework="pt") as weights:
                names = frozenset(weights.keys())
                of_base = {each: self._base.get(_in_base(each)) for each in names}
                for each, base in of_base.items():
                    if base is None or any(part in (kept or ()) for part in each.split(".")):
                        continue
                    if not torch.equal(weights.get_tensor(each).to(base), base):
                        raise InvalidRequest(
                            f"The adapter {name!r} cannot be loaded: it replaces {each!r}, which "
                            "its base shares with other adapters"
                        )
        except (safetensors.SafetensorError, OSError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"The adapter {name!r} cannot be loaded: {error}") from error
        return names - {each for each, base in of_base.items() if base is not None}

    def _require_whole(self, name: str, stored: frozenset[str]) -> None:
        """Hold the names of an adapter against what it was put on: peft only warns."""
        peft = require("peft", extra=EXTRA)
        taken = peft.get_peft_model_state_dict(
            self._tuned, adapter_name=self._keys[name], save_embedding_layers=False
        )
        wanted = frozenset(each for each in taken if _in_base(each) not in self._base)
        for some, fault in ((wanted - stored, "are missing"), (stored - wanted, "fit nowhere")):
            if some:
                raise InvalidRequest(
                    f"The adapter {name!r} cannot be loaded: {len(some)} of its weights {fault}, "
                    f"such as {min(some)!r}"
                )

    def _plain(self, **inputs: Any) -> Any:
        if self._tuned is None:
            return self._model(**inputs)
        with self._tuned.disable_adapter():
            return self._tuned(**inputs)


def _in_base(name: str) -> str:
    """Return what the base calls a weight that an adapter stores whole."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
