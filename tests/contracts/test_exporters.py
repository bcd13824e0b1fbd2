"""Formats of whole models: found in their folder, each says what the model says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import InvalidConfiguration
from trained import only_third_parties_warn
from training import adapted_model, parity
from training.exporters import formats, open_exporter
from training.specification.base import Base
from tuning import write_base

pytest.importorskip("transformers")
pytestmark = only_third_parties_warn
NEEDS = {"onnx": "onnxscript", "executorch": "executorch"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_base(tmp_path_factory.mktemp("exported") / "base")
    asked = Base(model="base", dtype="float32", attention="sdpa")
    return adapted_model.load_base(asked, folder, device="cpu").eval()


def test_the_walk_finds_the_formats() -> None:
    assert formats() == sorted(NEEDS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", formats())
def test_what_was_written_says_what_the_model_says_of_rows_of_any_length(
    name: str, model: Any, tmp_path: Path
) -> None:
    pytest.importorskip(NEEDS[name])
    exporter = open_exporter(name)
    exporter.write(model, tmp_path)
    rows = [[5, 6, 7], list(range(4, 60))]
    told = exporter.open(tmp_path)(rows)
    meant = parity.of_model(model)(rows)
    assert [each.shape for each in told] == [each.shape for each in meant]
    worst = max(float(np.abs(a - b).max()) for a, b in zip(told, meant, strict=True))
    assert worst <= exporter.max_difference


def test_a_program_that_is_not_there_is_told_with_how_to_get_it(model: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("executorch") is not None:
        pytest.skip("executorch is installed")
    with pytest.raises(InvalidConfiguration, match="pip install executorch"):
        open_exporter("executorch").write(model, tmp_path)
