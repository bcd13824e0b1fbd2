r"""What a training uses of its devices: the share of their arithmetic (MFU), and their memory.

Operations of a token are 2 W forward and 2 W back to the adapters, where W are the weights it is
multiplied by: all but a table of embeddings that is only looked up and, of a mixture, the experts
it is not led to. The head of a model of rewards is one row, and left out. Each pass through which
nothing is learned is 2 W more. Attention over earlier tokens, and activations that are made twice,
are left out, which makes the share too small. The head is counted for every token; where words are
computed only for those that are learned, that makes it too large:
https://arxiv.org/abs/2204.02311, appendix B.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from infra.plugins import require
from training.accelerators import GIB, Device, device_here, tflops_of
from training.model_shape import ModelShape
from training.spec import FineTuning

if TYPE_CHECKING:
    from training.base_model import BaseModel
    from training.callbacks import Progress

PASSES = {"sft": 0, "dpo": 1, "kto": 3, "reward": 0}
"""Forward passes of a step through which nothing is learned: of the base, to hold the answers
against; for `kto` also of both over answers to other questions."""


def operations(shape: ModelShape, method: str, *, twice: bool = False) -> int:
    """Return the operations of a token; with those of its activations made `twice`, if they are."""
    looked_up = shape.head_parameters  # as large as a table beside it, and 0 if it is the table
    unused = shape.embedding_parameters if method == "reward" else looked_up
    passes = (6 if twice else 4) + 2 * PASSES[method]
    return passes * (shape.parameters - unused - shape.idle_parameters)


def watched(
    spec: FineTuning, base: BaseModel, *, device: Device | None = None
) -> Callable[[Progress], Mapping[str, float]]:
    """Return what turns how far a training is into figures of what it uses.

    These are `memory_gib`, the most that this process has held, and `mfu` where a data sheet says
    what the devices can do: in the steps since it was asked before.

    Args:
        spec: of the training.
        base: that is trained on.
        device: that is trained with; by default the one of this process.
    """
    tflops = tflops_of(spec.runtime, device or device_here())
    most = None if tflops is None else spec.parallelism.world * tflops * 1e12
    each = operations(base.shape, spec.method.type)

    tokens = seconds = 0.0

    def used(now: Progress) -> dict[str, float]:
        nonlocal tokens, seconds
        learned, took = now.tokens - tokens, now.seconds - seconds
        tokens, seconds = now.tokens, now.seconds
        found = {"memory_gib": peak() / GIB}
        return {**found, "mfu": learned / took * each / most} if most and took > 0 else found

    return used


def peak() -> int:
    """Return the most bytes that this process has held: of its GPU, else of the machine."""
    torch = require("torch", extra="finetune")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
