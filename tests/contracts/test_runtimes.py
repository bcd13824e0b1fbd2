"""Laws that every runtime of classical models obeys."""

from __future__ import annotations

import io
import json
import pickle  # noqa: TID251 - what is refused has to be made first
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import sklearn
import xgboost
from onnx import TensorProto, helper

import classical_models
from infra.classical import ModelFile
from infra.errors import EngineFailed, InvalidRequest
from infra.plugins import available
from service.runtimes import FOLDER, Limits, Runtime, open_runtime

NAMES = available(FOLDER)


def opened(name: str, labels: tuple[Any, ...] | None = ("no", "yes")) -> Runtime:
    made = classical_models.native(name, labels)
    return open_runtime(made.model, made.data, Limits())


def columns_for(model: ModelFile, given: list[dict[str, Any]]) -> dict[str, Any]:
    columns = classical_models.columns_of(given)
    return {each.name: columns[each.name] for each in model.inputs}


def test_folder_holds_the_runtimes_we_ship() -> None:
    assert NAMES == ["lightgbm", "onnx", "skops", "xgboost"]


@pytest.mark.parametrize("name", NAMES)
def test_runtime_is_named_after_its_file_and_knows_its_size(name: str) -> None:
    runtime = opened(name)
    assert runtime.name == name
    assert type(runtime).__module__ == f"service.runtimes.{name}"
    assert runtime.size_bytes == len(classical_models.native(name).data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("labels", [("no", "yes"), (0, 1, 2)])
def test_probabilities_are_those_that_the_model_was_trained_to_give(
    name: str, labels: tuple[Any, ...]
) -> None:
    made = classical_models.native(name, labels)
    columns = columns_for(made.model, classical_models.rows(50, seed=9))
    found = opened(name, labels).run(columns)
    np.testing.assert_allclose(found, made.predict(columns), atol=1e-5)
    assert found.shape == (50, len(labels))
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_values_of_a_regression_are_those_that_the_model_was_trained_to_give(name: str) -> None:
    made = classical_models.native(name, None)
    columns = columns_for(made.model, classical_models.rows(50, seed=9))
    found = opened(name, None).run(columns)
    assert found.shape == (50,)
    np.testing.assert_allclose(found, made.predict(columns), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_batch_gives_what_its_rows_give_one_by_one(name: str) -> None:
    runtime, model = opened(name), classical_models.native(name).model
    given = classical_models.rows(20, seed=3)
    whole = runtime.run(columns_for(model, given))
    singly = [runtime.run(columns_for(model, [row]))[0] for row in given]
    np.testing.assert_allclose(whole, np.array(singly), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_threads_get_what_one_gets(name: str) -> None:
    runtime, model = opened(name), classical_models.native(name).model
    tables = [columns_for(model, classical_models.rows(5, seed=seed)) for seed in range(40)]
    alone = [runtime.run(table) for table in tables]
    with ThreadPoolExecutor(8) as threads:
        for one, other in zip(alone, threads.map(runtime.run, tables), strict=True):
            np.testing.assert_array_equal(one, other)


class Runs:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code of a model file was run')",))


@cache
def lies() -> dict[str, bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("model.pkl", pickle.dumps(Runs()))
    return {
        "empty": b"",
        "pickle": pickle.dumps(Runs()),
        "old pickle": pickle.dumps(Runs(), protocol=0),
        "gzip": b"\x1f\x8b" + b"\0" * 40,
        "zlib, as joblib writes": b"\x78\x9c" + b"\0" * 40,
        "zip of a pickle": archive.getvalue(),
        "noise": bytes(range(1, 200)),
        "text": b"hello",
        **{
            f"half of {name}": each.data[: len(each.data) // 2]
            for name, each in ((name, classical_models.native(name)) for name in NAMES)
        },
    }


LIES = (
    *("empty", "gzip", "noise", "old pickle", "pickle", "text"),
    *("zip of a pickle", "zlib, as joblib writes"),
    *(f"half of {name}" for name in NAMES),
)


def test_every_lie_is_told() -> None:
    assert set(LIES) == lies().keys()


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("name", NAMES)
def test_file_that_lies_about_its_format_is_refused(name: str, lie: str) -> None:
    with pytest.raises(InvalidRequest):
        open_runtime(classical_models.native(name).model, lies()[lie], Limits())


@pytest.mark.parametrize("name", NAMES)
def test_file_of_another_format_or_too_large_is_refused(name: str) -> None:
    made = classical_models.native(name)
    for other in NAMES:
        if other != name:
            with pytest.raises(InvalidRequest):
                open_runtime(made.model, classical_models.native(other).data, Limits())
    with pytest.raises(InvalidRequest, match="allowed"):
        open_runtime(made.model, made.data, Limits(max_bytes=len(made.data) - 1))


@pytest.mark.parametrize("name", ["onnx", "skops"])
def test_other_classes_than_the_artifact_names_are_refused(name: str) -> None:
    made = classical_models.native(name, (0, 1, 2))
    with pytest.raises(InvalidRequest, match="classes"):
        open_runtime(made.model.model_copy(update={"classes": (0, 1)}), made.data, Limits())


@pytest.mark.parametrize("name", ["lightgbm", "xgboost"])
def test_booster_that_does_not_fit_its_columns_or_task_is_refused(name: str) -> None:
    made = classical_models.native(name)
    for changes in (
        {"inputs": made.model.inputs[:-1]},
        {"inputs": classical_models.COLUMNS[1:]},
        {"task": "regression", "classes": None},
    ):
        with pytest.raises(InvalidRequest):
            open_runtime(made.model.model_copy(update=changes), made.data, Limits())


def of_a_newer_library(name: str) -> bytes:
    data = classical_models.native(name).data
    if name == "onnx":
        graph = onnx.load_model_from_string(data)
        graph.opset_import[0].version = 99
        return bytes(graph.SerializeToString())
    if name == "skops":
        return changed_schema(data, sklearn.__version__, "99.1.0")
    if name == "lightgbm":
        return data.replace(b"\nversion=v4\n", b"\nversion=v99\n")
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    return re.sub(rb'"version":\[\d+,', b'"version":[99,', bytes(booster.save_raw("json")))


@pytest.mark.parametrize("name", NAMES)
def test_model_of_a_newer_library_is_refused_and_not_loaded_with_a_warning(name: str) -> None:
    made, data = classical_models.native(name), of_a_newer_library(name)
    assert data != made.data
    with pytest.raises(InvalidRequest, match=r"model: .*Opset 99|by .* 99\."):
        open_runtime(made.model, data, Limits())


def test_binary_model_of_a_newer_xgboost_is_refused() -> None:
    made = classical_models.native("xgboost")
    before, mark, after = made.data.rpartition(b"\x07version[#L" + b"\0" * 7 + b"\3i")
    assert mark
    newer = before + mark + b"\x63" + after[1:]
    with pytest.raises(InvalidRequest, match=r"XGBoost 99\."):
        open_runtime(made.model, newer, Limits())


def test_graph_with_other_inputs_is_refused() -> None:
    made = classical_models.classifier()
    model = made.model.model_copy(update={"inputs": made.model.inputs[:-1]})
    with pytest.raises(InvalidRequest, match="plan"):
        open_runtime(model, made.onnx, Limits())


def test_number_that_a_graph_cannot_hold_is_infinite_to_it() -> None:
    given = [{**classical_models.ROW, "age": age} for age in (1e308, -1e308)]
    found = opened("onnx").run(classical_models.columns_of(given))
    assert found.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_graph_that_keeps_weights_elsewhere_is_refused() -> None:
    graph = onnx.load_model_from_string(classical_models.classifier().onnx)
    tensor = graph.graph.initializer.add()
    tensor.CopyFrom(helper.make_tensor("outside", TensorProto.FLOAT, [1], [1.0]))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(InvalidRequest, match="other files"):
        open_runtime(classical_models.classifier().model, graph.SerializeToString(), Limits())


def test_graph_that_answers_in_another_shape_fails() -> None:
    made = classical_models.classifier()
    graph = onnx.load_model_from_string(made.onnx)
    (last,) = [each for each in graph.graph.node if "probabilities" in each.output]
    last.output[list(last.output).index("probabilities")] = "whole"
    graph.graph.node.append(
        helper.make_node("Concat", ["whole", "whole", "whole"], ["tripled"], axis=1)
    )
    graph.graph.initializer.append(helper.make_tensor("flat", TensorProto.INT64, [1], [-1]))
    graph.graph.node.append(helper.make_node("Reshape", ["tripled", "flat"], ["probabilities"]))
    for output in graph.graph.output:
        if output.name == "probabilities":
            output.type.tensor_type.ClearField("shape")
    runtime = open_runtime(made.model, graph.SerializeToString(), Limits())
    with pytest.raises(EngineFailed, match=r"shape \(6,\), not \(1, 2\)"):
        runtime.run(classical_models.columns_of([classical_models.ROW]))


def test_graph_with_operators_of_its_own_is_refused() -> None:
    graph = onnx.load_model_from_string(classical_models.classifier().onnx)
    graph.opset_import.add(domain="somebody.else", version=1)
    with pytest.raises(InvalidRequest, match=r"somebody\.else"):
        open_runtime(classical_models.classifier().model, graph.SerializeToString(), Limits())


def changed_schema(data: bytes, old: str, new: str) -> bytes:
    """Return a skops file in whose schema one word stands for another."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(result, "w") as after:
        for member in before.namelist():
            content = before.read(member)
            if member == "schema.json":
                assert old in content.decode()
                content = content.decode().replace(old, new).encode()
                json.loads(content)
            after.writestr(member, content)
    return result.getvalue()


@pytest.mark.parametrize("named", [True, False])
def test_type_that_nobody_reviewed_is_refused_also_where_the_file_asks_for_it(named: bool) -> None:
    made = classical_models.classifier()
    data = changed_schema(made.skops, '"LogisticRegression"', '"Popen"')
    data = changed_schema(data, '"sklearn.linear_model._logistic"', '"subprocess"')
    changes = {"format": "skops", "file": "model.skops"}
    if named:
        changes["trusted"] = (*made.model.trusted, "subprocess.Popen")
    model = made.model.model_copy(update=changes)
    with pytest.raises(InvalidRequest, match=r"subprocess\.Popen"):
        open_runtime(model, data, Limits())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.datasets", "fetch_openml"),
        ("sklearn.datasets._openml", "Request"),
        ("training.tabular.exporting", "from_skops"),
        ("training.tabular.columns", "Chosen"),
    ],
)
def test_what_is_no_class_of_the_library_is_no_reviewed_type(module: str, name: str) -> None:
    made = classical_models.classifier()
    data = changed_schema(made.skops, '"LogisticRegression"', f'"{name}"')
    data = changed_schema(data, '"sklearn.linear_model._logistic"', f'"{module}"')
    trusted = (*made.model.trusted, f"{module}.{name}")
    changes: dict[str, Any] = {"format": "skops", "file": "model.skops", "trusted": trusted}
    with pytest.raises(InvalidRequest, match=f"nobody reviewed: {module}.{name}"):
        open_runtime(made.model.model_copy(update=changes), data, Limits())


def test_archive_that_unpacks_to_too_much_is_refused() -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("schema.json", b" " * 10_000_000)
    model = classical_models.native("skops").model
    with pytest.raises(InvalidRequest, match="unpacks"):
        open_runtime(model, bomb.getvalue(), Limits(max_bytes=1_000_000))
