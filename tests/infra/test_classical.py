"""The file `model.json`: what it holds, what of it is refused, how thresholds decide."""

import json

import numpy as np
import pytest

from infra import classical
from infra.errors import InvalidRequest, NotFound, TooLarge

VALUES = {
    "format": "onnx",
    "file": "model.onnx",
    "task": "classification",
    "inputs": [
        {"name": "age", "type": "float64", "nullable": True, "low": 17, "high": 90},
        {"name": "sex", "type": "string", "categories": ["Female", "Male"]},
    ],
    "target": "class",
    "classes": ["<=50K", ">50K"],
    "thresholds": {"<=50K": 0.7, ">50K": 0.3},
    "schema_version": 1,
}


def test_what_is_written_is_read_back(tmp_path):
    model = classical.parse(VALUES)
    classical.write(tmp_path, model)
    assert classical.read(tmp_path) == model
    assert {each.name: each.high for each in model.inputs}["age"] == 90


@pytest.mark.parametrize("classes", [[0, 1], [False, True], [0.5, 1.5], ["a", "b", "c"]])
def test_classes_keep_their_types(tmp_path, classes):
    model = classical.parse({**VALUES, "classes": classes, "thresholds": None})
    classical.write(tmp_path, model)
    found = classical.read(tmp_path).classes
    assert [type(each) for each in found] == [type(each) for each in classes]
    assert list(found) == classes


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": "pickle"}, "format"),
        ({"file": "../model.onnx"}, "file"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [VALUES["inputs"][0]] * 2}, "same name"),
        ({"classes": ["one"]}, "at least two"),
        ({"classes": None}, "at least two"),
        ({"classes": ["1", 1]}, "read the same"),
        ({"thresholds": {"<=50K": 0.7}}, "one for each class"),
        ({"thresholds": {"<=50K": 0.7, ">50K": 0.0}}, "above 0"),
        ({"task": "regression"}, "of classification"),
        ({"schema_version": 2}, "later release"),
        ({"surprise": 1}, "surprise"),
        ({"inputs": [{"name": "a", "type": "float64", "low": 2, "high": 1}]}, "above high"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(changed, said):
    with pytest.raises(InvalidRequest, match=said):
        classical.parse({**VALUES, **changed})


def test_damaged_missing_and_huge_files_are_refused(tmp_path):
    with pytest.raises(NotFound):
        classical.read(tmp_path)
    path = tmp_path / classical.FILE
    for data in (b"", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"):
        path.write_bytes(data)
        with pytest.raises(InvalidRequest):
            classical.read(tmp_path)
    path.write_bytes(b" " * (classical.MAX_BYTES + 1))
    with pytest.raises(TooLarge):
        classical.read(tmp_path)


def test_thresholds_move_the_decision_and_hold_at_their_edge():
    chances = np.array([[0.71, 0.29], [0.7, 0.3], [0.4, 0.6]])
    assert classical.decide(chances, classical.parse(VALUES)).tolist() == [0, 1, 1]
    plain = classical.parse({**VALUES, "thresholds": None})
    assert classical.decide(chances, plain).tolist() == [0, 0, 1]
    for model in (classical.parse(VALUES), plain):  # one row goes another way
        alone = [int(classical.decide(chances[at : at + 1], model)[0]) for at in range(3)]
        assert alone == classical.decide(chances, model).tolist()


def test_a_file_says_json(tmp_path):
    classical.write(tmp_path, classical.parse(VALUES))
    assert json.loads((tmp_path / "model.json").read_text())["inputs"][0]["type"] == "float64"
