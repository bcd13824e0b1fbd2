"""Formats of whole models: found in their folder, each says what the model says."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from infra.errors import InvalidConfiguration, InvalidRequest
from trained import only_third_parties_warn
from training import adapted_model, parity
from training.exporters import formats, open_exporter
from training.exporters._writing import quietly
from training.specification.base import Base
from tuning import write_base

pytest.importorskip("transformers")
pytestmark = only_third_parties_warn
Write: TypeAlias = Callable[[str, bool], Path]
NEEDS = {"onnx": "onnxscript", "executorch": "executorch"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_base(tmp_path_factory.mktemp("exported") / "base")
    asked = Base(model="base", dtype="float32", attention="sdpa")
    return adapted_model.load_base(asked, folder, device="cpu").eval()


def test_the_walk_finds_the_formats() -> None:
    assert formats() == sorted(NEEDS)


@pytest.fixture(scope="module")
def write(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write the model in a format, once with a cache and once without."""
    made: dict[tuple[str, bool], Path] = {}

    def written(name: str, cache: bool) -> Path:
        pytest.importorskip(NEEDS[name])
        if (name, cache) not in made:
            folder = made[name, cache] = tmp_path_factory.mktemp(name)
            open_exporter(name).write(model, folder, cache=cache)
        return made[name, cache]

    return written


@pytest.mark.thorough
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("name", formats())
def test_what_was_written_says_what_the_model_says_of_rows_of_any_length(
    name: str, cache: bool, model: Any, write: Write
) -> None:
    exporter, folder = open_exporter(name), write(name, cache)
    rows = [[5, 6, 7], list(range(4, 60)), [9]]
    told = exporter.open(folder)(rows)
    meant = parity.of_model(model)(rows)
    assert [each.shape for each in told] == [each.shape for each in meant]
    worst = max(float(np.abs(a - b).max()) for a, b in zip(told, meant, strict=True))
    assert worst <= exporter.max_difference


@pytest.mark.parametrize("name", formats())
def test_a_row_is_gone_on_with_through_the_cache_as_the_model_does(
    name: str, model: Any, write: Write
) -> None:
    asked = open_exporter(name).open(write(name, True))
    rows = [tuple(range(20, 40)), (7, 8, 9)]
    said = parity.ask(asked, rows)
    assert said.greedy == parity.ask(parity.of_model(model), rows).greedy
    assert {len(each) for each in said.greedy} == {parity.NEW_TOKENS}


def test_rows_of_a_batch_are_gone_on_with_side_by_side(model: Any, write: Write) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(write("onnx", True) / "model.onnx"))
    rows = [[5, 6, 7, 8, 9], [30, 31, 32]]
    ids = np.array([rows[0], [0, 0, *rows[1]]])
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    given = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(1) - 1, 0),
    }
    empty = {
        each.name: np.zeros((2, each.shape[1], 0, each.shape[3]), np.float32)
        for each in session.get_inputs()
        if each.name not in given
    }
    assert sorted(empty) == [
        f"past_key_values.{n}.{what}" for n in (0, 1) for what in ("key", "value")
    ]
    first, *kept = session.run(None, {**given, **empty})
    names = [each.name.replace("present", "past_key_values") for each in session.get_outputs()]
    more = {"input_ids": np.array([[40], [41]]), "position_ids": np.array([[5], [3]])}
    more["attention_mask"] = np.concatenate([mask, np.ones((2, 1), np.int64)], axis=1)
    second, *_ = session.run(None, {**more, **dict(zip(names[1:], kept, strict=True))})
    meant = parity.of_model(model)([[*rows[0], 40], [*rows[1], 41]])
    for row, (before, after, whole) in enumerate(zip(first, second, meant, strict=True)):
        assert np.abs(before[-1] - whole[-2]).max() < 1e-3, row
        assert np.abs(after[-1] - whole[-1]).max() < 1e-3, row


def test_a_cache_holds_keys_that_only_a_window_looks_at(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    transformers = pytest.importorskip("transformers")
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, sliding_window=4, **sizes
    )
    config._attn_implementation = "sdpa"
    windowed = transformers.AutoModelForCausalLM.from_config(config).eval()
    exporter = open_exporter("onnx")
    exporter.write(windowed, tmp_path, cache=True)
    row = [list(range(1, 30))]
    (told,), (meant,) = exporter.open(tmp_path)(row), parity.of_model(windowed)(row)
    assert np.abs(told - meant).max() <= exporter.max_difference


@pytest.mark.parametrize("name", formats())
def test_a_model_with_states_is_written_without_a_cache_alone(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(InvalidRequest, match="LinearAttentionLayer.*without a cache"):
        open_exporter(name).write(model, tmp_path, cache=True)


def test_a_program_that_is_not_there_is_told_with_how_to_get_it(model: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("executorch") is not None:
        pytest.skip("executorch is installed")
    with pytest.raises(InvalidConfiguration, match="pip install executorch"):
        open_exporter("executorch").write(model, tmp_path, cache=False)


def test_what_libraries_log_while_a_model_is_written_is_kept_from_users(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("torch.onnx")
    with quietly():
        logger.warning("an operator is skipped")
    assert not caplog.records
    logger.warning("afterwards")
    assert len(caplog.records) == 1
