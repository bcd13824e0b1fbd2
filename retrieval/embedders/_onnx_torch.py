"""Exports any sentence-transformers model with torch: for those whose graph is not written here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from infra.plugins import require
from retrieval.embedders._model_folder import ModelFolder
from retrieval.embedders._onnx_graph import INPUT, OUTPUT

EXTRA = "torch"
EXAMPLE_TOKENS = 7
"""Not 1, which an export takes for a constant."""


def export(folder: ModelFolder, target: Path) -> None:
    """Write the model in float32 to `target`, with the inputs and outputs of our own graphs.

    Raises:
        MissingDependency: torch, sentence-transformers or onnxscript is not installed.
    """
    torch = require("torch", extra=EXTRA)
    library = require("sentence_transformers", extra=EXTRA)
    require("onnxscript", extra=EXTRA)
    require("transformers", extra=EXTRA).utils.logging.disable_progress_bar()
    model = library.SentenceTransformer(
        str(folder.path),
        device="cpu",
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )
    example = torch.ones((1, EXAMPLE_TOKENS), dtype=torch.int64)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's own, about its own future
        torch.onnx.export(
            _wrapped(torch, model),
            (example,),
            str(target),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")},),
            dynamo=True,
            external_data=True,
            verbose=False,
        )


def _wrapped(torch: Any, model: Any) -> Any:
    """Return a module that takes token ids alone and gives unit rows."""

    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            features = {INPUT: input_ids, "attention_mask": torch.ones_like(input_ids)}
            vectors = self.model(features)["sentence_embedding"]
            return torch.nn.functional.normalize(vectors, dim=-1)

    return Wrapped().eval()
