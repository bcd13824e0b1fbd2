"""A merged adapter in four or eight bits: real vLLM serves the files as transformers reads them."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tiny_llm import write_adapter
from trained import calm, only_third_parties_warn
from training import merging
from training.base_model import BaseModel, find_base
from training.compressing import compress
from training.parity import Samples
from training.specification.base import Base
from training.specification.delivery import Compress
from tuning import write_base
from vllm_server import ENVIRONMENT, INSTALLED, PYTHON

pytest.importorskip("peft")
pytest.importorskip("compressed_tensors")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
ROW = [*range(5, 60)]
KERNELS = {"w4a16": "CPUWNA16LinearKernel", "w8a8": "CPUInt8ScaledMMLinearKernel"}
ASK = """
import json, sys
from vllm import LLM, SamplingParams
folder, row = sys.argv[1], json.loads(sys.argv[2])
llm = LLM(folder, enforce_eager=True, max_model_len=256, max_num_seqs=4)
asked = SamplingParams(max_tokens=6, temperature=0, prompt_logprobs=1)
(said,) = llm.generate([{"prompt_token_ids": row}], asked)
scores = [each[id].logprob for id, each in zip(row[1:], said.prompt_logprobs[1:])]
layers = llm.apply_model(lambda whole: whole.model.layers[0])
kernels = [type(layer.mlp.down_proj.scheme.kernel).__name__ for layer in layers]
print("\\n" + json.dumps([scores, said.outputs[0].text, kernels]))
"""
"""In one process, which is there in a quarter of the time that a server takes."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A base with an adapter merged into it that says one thing."""
    folder = tmp_path_factory.mktemp("compressed")
    base = find(calm(write_base(folder / "base")))
    adapter = write_adapter(folder / "adapter", base.folder, "Z")
    merging.merge(asked(base), base, adapter, [ROW], into=folder / "merged", device="cpu")
    return find(folder / "merged")


def find(folder: Path) -> BaseModel:
    return find_base(Base(model=str(folder)), folder=folder, store=None, checkout=Path)


def asked(model: BaseModel) -> Base:
    return Base(model=model.name, dtype="float32")


def on_vllm(folder: Path) -> tuple[list[float], str, list[str]]:
    """Return the log-probabilities of a row's tokens, how it goes on, and what multiplies."""
    if not INSTALLED.exists():
        pytest.skip("no vLLM here; `make vllm` installs it")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {**ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    variables |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [str(PYTHON), "-c", ASK, str(folder), json.dumps(ROW)],
        env=variables, cwd=folder.parent, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    scores, text, kernels = json.loads(done.stdout.strip().splitlines()[-1])
    return scores, text, kernels


@pytest.mark.parametrize("scheme", ["w4a16", pytest.param("w8a8", marks=pytest.mark.slow)])
def test_vllm_serves_what_was_compressed_and_says_what_transformers_says(
    whole: BaseModel, tmp_path: Path, scheme: Any
) -> None:
    group = 32 if scheme == "w4a16" else None
    how = Compress(scheme=scheme, group_size=group, max_perplexity_ratio=1.2)
    small = tmp_path / scheme
    rows = Samples([ROW], [ROW[::-1]])
    found = compress(asked(whole), whole, how, rows, into=small, device="cpu")
    scores, text, kernels = on_vllm(small)
    assert kernels == [KERNELS[scheme]]
    assert text == "ZZZZZZ"
    # It multiplies in bfloat16.
    assert math.exp(-sum(scores) / len(scores)) == pytest.approx(found.perplexity_after, rel=0.05)
