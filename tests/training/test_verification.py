"""An adapter is read back from its files: a sound one passes, and each way to spoil it is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trained import only_third_parties_warn
from training import adapted_model, verification
from training.specification.base import Base
from training.specification.method import Lora, Method
from training.verification import PROBE_TOKENS, WEIGHTS, Probe, Unsound
from tuning import write_base

pytest.importorskip("peft")
pytestmark = only_third_parties_warn
BASE = Base(model="base", dtype="float32")
ROWS = [[5, 6, 7, 8], list(range(9, 300)) * 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("verified") / "base")


@pytest.fixture(scope="module")
def saved(folder: Path) -> tuple[Path, Probe]:
    """An adapter that says something, and what it says."""
    torch = pytest.importorskip("torch")
    model = adapted_model.attach(load(folder), Method(adapter=Lora(r=2)), seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    asked = verification.probe(model, ROWS, dtype="float32")
    model.save_pretrained(folder.parent / "adapter")
    return folder.parent / "adapter", asked


def load(folder: Path) -> Any:
    return adapted_model.load_base(BASE, folder, device="cpu")


@pytest.fixture
def copy(saved: tuple[Path, Probe], tmp_path: Path) -> tuple[Path, Probe]:
    shutil.copytree(saved[0], tmp_path / "adapter")
    return tmp_path / "adapter", saved[1]


def spoil(adapter: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / WEIGHTS)
    change(weights)
    save_file(weights, adapter / WEIGHTS, metadata={"format": "pt"})


def test_a_sound_adapter_is_the_same_and_long_rows_are_asked_from_their_beginning(
    folder: Path, saved: tuple[Path, Probe]
) -> None:
    adapter, asked = saved
    assert [len(row) for row in asked.rows] == [4, PROBE_TOKENS]
    assert [tuple(each.shape) for each in asked.logits] == [(4, 384), (PROBE_TOKENS, 384)]
    assert verification.verify(load(folder), adapter, asked) == 0.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.popitem(), "1 weights of the adapter are missing"),
        (lambda weights: weights.clear(), "holds no weight"),
        (
            lambda weights: weights.update(
                {"base_model.model.nowhere.lora_A.weight": next(iter(weights.values())).clone()}
            ),
            "1 weights fit nowhere in the base",
        ),
        (lambda weights: next(iter(weights.values())).fill_(float("nan")), "are no numbers"),
        (lambda weights: [each.mul_(1.5) for each in weights.values()], "answers otherwise"),
    ],
)
def test_a_spoilt_adapter_is_refused(
    folder: Path,
    copy: tuple[Path, Probe],
    change: Callable[[dict[str, Any]], object],
    words: str,
) -> None:
    adapter, asked = copy
    spoil(adapter, change)
    with pytest.raises(Unsound, match=words):
        verification.verify(load(folder), adapter, asked)


def test_an_adapter_that_changes_nothing_is_refused(folder: Path, copy: tuple[Path, Probe]) -> None:
    adapter, asked = copy
    spoil(adapter, lambda weights: [each.zero_() for each in weights.values()])
    silent = replace(asked, logits=tuple(adapted_model.logits(load(folder), asked.rows)))
    with pytest.raises(Unsound, match="changes no answer"):
        verification.verify(load(folder), adapter, silent)


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_file_that_is_cut_off_or_gone_is_refused(
    folder: Path, copy: tuple[Path, Probe], is_cut: bool
) -> None:
    adapter, asked = copy
    path = adapter / WEIGHTS
    if is_cut:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.unlink()
    with pytest.raises(Unsound, match="cannot be read back"):
        verification.verify(load(folder), adapter, asked)
