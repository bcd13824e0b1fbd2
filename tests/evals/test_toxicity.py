"""Toxicity, by small models with random weights: the numbers are transformers' own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from evals.context import Context
from evals.evaluation import MeasuredBy
from evals.metric import Metric, open_metric
from evals.scores import Score
from evals.trial import Case, Output
from infra.errors import InvalidConfiguration, InvalidRequest
from pair_models import write_pair_model

SEQUENCE = "BertForSequenceClassification"
LONG = "tower " * 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models")
    write_pair_model(found / "one", SEQUENCE, ["fine", "Toxic"])
    several = Path(write_pair_model(found / "several", SEQUENCE, ["toxic", "threat", "other"]))
    config = json.loads((several / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (several / "config.json").write_text(json.dumps(config))
    write_pair_model(found / "moods", SEQUENCE, ["sad", "glad"])
    return found


def opened(folder: Path, name: str, **parameters: Any) -> Any:
    return open_metric("toxicity", {"model": str(folder / name), **parameters})


def score(metric: Metric, text: str) -> Score:
    return asyncio.run(metric.score(Case("1", "?"), Output(text), Context()))


@pytest.mark.parametrize(
    ("name", "labels", "join"),
    [("one", ["toxic"], sum), ("several", ["toxic", "threat"], max)],
    ids=["one label of several", "labels of their own"],
)
def test_score_is_what_transformers_says_of_the_labels(
    folder: Path, name: str, labels: list[str], join: Any
) -> None:
    import transformers

    pipeline = transformers.pipeline("text-classification", str(folder / name), top_k=None)
    metric = opened(folder, name, labels=labels)
    for text in ("raven", "tower king wall", "stone : query"):
        said = {each["label"].lower(): each["score"] for each in pipeline([text])[0]}
        found = score(metric, text)
        assert found.value == pytest.approx(join(said[label] for label in labels), abs=1e-5)


def test_worst_stretch_of_a_long_answer_decides_wherever_it_stands(folder: Path) -> None:
    metric = opened(folder, "one")
    plain = score(metric, LONG)
    texts = ["raven king raven king " * 10, "wall stone wall stone " * 10]
    worse = max(texts, key=lambda text: score(metric, text).value or 0)
    alone = score(metric, worse).value
    assert alone is not None
    assert plain.value is not None
    assert alone > plain.value
    for text in (worse + LONG, LONG + worse, LONG + worse + LONG):
        found = score(metric, text)
        assert found.value is not None
        assert found.value > plain.value
        assert set(found.details["worst"].split()) & set(worse.split())


@pytest.mark.parametrize("text", ["", " \n", "\x00"])
def test_answer_without_a_word_is_unscored(folder: Path, text: str) -> None:
    assert score(opened(folder, "one"), text).state == "unscored"


def test_half_a_character_and_unknown_words_are_scored_within_the_bounds(folder: Path) -> None:
    for text in ("\udc80", "？！。" * 500, "zzz"):
        found = score(opened(folder, "one"), text)
        assert found.value is None or 0 <= found.value <= 1


def test_model_without_such_labels_says_which_it_has(folder: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="It has sad, glad; name them as `labels`"):
        score(opened(folder, "moods"), "raven")
    with pytest.raises(InvalidConfiguration, match="It has fine, toxic"):
        score(opened(folder, "one", labels=["rude"]), "raven")
    assert score(opened(folder, "moods", labels=["sad"]), "raven").state == "scored"


def test_other_weights_under_the_same_name_are_another_metric(folder: Path, tmp_path: Path) -> None:
    write_pair_model(tmp_path / "one", SEQUENCE, ["fine", "toxic"])

    def of() -> MeasuredBy:
        metric = opened(tmp_path, "one")
        return MeasuredBy.of(metric, name="toxicity", parameters={"model": "one"})

    before = of()
    assert of() == before
    weights = tmp_path / "one" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert of() != before


def test_model_has_to_be_named_and_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="model"):
        open_metric("toxicity", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidConfiguration, match="is no text classifier"):
        score(opened(tmp_path, "empty"), "raven")
