"""A graph opened in ONNX Runtime: one text in, its vector or those of its tokens out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from infra.plugins import require
from retrieval.embedders._model_folder import EXTRA
from retrieval.embedders._onnx_graph import INPUT, OUTPUT, TOKENS

SHRINK_ABOVE_TOKENS = 1024
"""A run of a longer text gives the memory it took back to the system."""
SLOW_FUSION = "SkipLayerNormFusion"
"""On the CPU, what it makes of a sum and a norm takes five times as long as the two."""
_VNNI = {"avx512_vnni", "avx_vnni"}


class Runner:
    """The opened graph; any number of threads may run it at once."""

    def __init__(self, graph: Path, tokenizer: Tokenizer) -> None:
        library = require("onnxruntime", extra=EXTRA)
        library.disable_telemetry_events()
        self._session = library.InferenceSession(
            str(graph),
            session_options(library),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[SLOW_FUSION],
        )
        self._shrink = library.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._tokenizer = tokenizer

    @property
    def dimension(self) -> int:
        return int(self._session.get_outputs()[0].shape[1])

    def run(self, text: str) -> NDArray[np.float32]:
        return self._asked(OUTPUT, self._encoded(text))

    def tokens(self, text: str) -> NDArray[np.float32]:
        """Return a unit row for each token but those that the model puts around a text."""
        encoding = self._encoded(text)
        rows = self._asked(TOKENS, encoding)[np.array(encoding.special_tokens_mask) == 0]
        norms: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: NDArray[np.float32] = rows / np.maximum(norms, np.finfo(np.float32).tiny)
        return unit

    def _encoded(self, text: str) -> Encoding:
        # The form for a batch is the one that lets other threads run meanwhile.
        (encoding,) = self._tokenizer.encode_batch_fast([text])
        return encoding

    def _asked(self, output: str, encoding: Encoding) -> NDArray[np.float32]:
        ids = np.array([encoding.ids], dtype=np.int64)
        options = self._shrink if ids.size > SHRINK_ABOVE_TOKENS else None
        found: NDArray[np.float32] = self._session.run([output], {INPUT: ids}, options)[0][0]
        return found


def session_options(library: Any) -> Any:
    """Return how a graph is opened: on one thread, and with exact sums of int8 products."""
    options = library.SessionOptions()
    options.intra_op_num_threads = 1  # threads that wait for each other lose on a busy machine
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps a plan of every length it has seen
    options.log_severity_level = 3
    if not adds_up_in_32_bits(_processors()):
        # The runtime's kernels that do not saturate. Asked for, they are taken even where the fast
        # ones are exact, so they are not asked for there; both give the same numbers to the bit.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def adds_up_in_32_bits(cpuinfo: str) -> bool:
    """Whether every processor of a `/proc/cpuinfo` has VNNI: without it, int8 sums saturate."""
    flags = [set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")]
    return bool(flags) and all(each & _VNNI for each in flags)


def _processors() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # another system than Linux: nobody knows
        return ""
