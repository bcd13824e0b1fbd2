"""Any sentence-transformers cross-encoder by hub id or path, with one output per pair."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration
from infra.model_hub import located
from infra.plugins import require

EXTRA = "torch"


class CrossEncoderReranker:
    """Torch and the weights are loaded by the first `score`."""

    def __init__(
        self, folder: Path, *, device: str | None, batch_size: int, max_tokens: int | None
    ) -> None:
        self._folder = folder
        self._device = device
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._loading = threading.Lock()
        self._predicting = threading.Lock()
        self._model: Any = None

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the sigmoid of the model's output for each pair of question and text.

        Raises:
            InvalidConfiguration: the model has several outputs, as one for entailment has.
        """
        if not texts:
            return np.empty(0, dtype=np.float32)
        model = self._load()
        sigmoid = require("torch", extra=EXTRA).nn.Sigmoid()
        with self._predicting:  # one call fills the cores; two only thrash
            scores = model.predict(
                [(question, text) for text in texts],
                batch_size=self._batch_size,
                activation_fn=sigmoid,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.asarray(scores, dtype=np.float32).reshape(len(texts))

    def _load(self) -> Any:
        with self._loading:
            if self._model is None:
                require("transformers", extra=EXTRA).utils.logging.disable_progress_bar()
                library = require("sentence_transformers", extra=EXTRA)
                model = library.CrossEncoder(
                    str(self._folder),
                    device=self._device,
                    max_length=self._max_tokens,
                    local_files_only=True,
                    model_kwargs={"use_safetensors": True},
                )
                if model.num_labels != 1:
                    raise InvalidConfiguration(
                        f"{str(self._folder)!r} has {model.num_labels!r} outputs, a reranker has "
                        "one; name a model trained to rank"
                    )
                self._model = model
            return self._model


def build(
    *,
    model: str,
    device: str | None = None,
    batch_size: int = 32,
    max_tokens: int | None = None,
) -> CrossEncoderReranker:
    """Open a model.

    Args:
        model: a folder or a hub id (`name` or `name@revision`).
        device: as torch names it; the best there is if absent.
        batch_size: pairs per forward pass.
        max_tokens: of question and passage together; as the model says if absent.

    Raises:
        InvalidConfiguration: there is no such model.
        MissingDependency: the packages for it are not installed.
    """
    folder = located(model, extra=EXTRA)
    if not (folder / "config.json").is_file():
        raise InvalidConfiguration(f"{str(folder)!r} holds no config.json; name another model")
    return CrossEncoderReranker(folder, device=device, batch_size=batch_size, max_tokens=max_tokens)
