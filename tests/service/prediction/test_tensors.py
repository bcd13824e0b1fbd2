"""The protocol's requests: read whatever their form, refused where they are wrong."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.classical import Kind
from infra.errors import InvalidRequest
from service.prediction import tensors
from service.prediction.tensors import Output, Wanted

KINDS: dict[str, Kind] = {"age": "float64", "visits": "int64", "trial": "bool", "plan": "string"}


def tensor(name: str, datatype: str, data: Any, **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **changes}


def whole(**changes: Any) -> dict[str, Any]:
    inputs = [
        tensor("age", "FP64", [1.5, None]),
        tensor("visits", "INT64", [3, 4]),
        tensor("trial", "BOOL", [True, False]),
        tensor("plan", "BYTES", ["pro", "basic"]),
    ]
    return {"id": "7", "inputs": inputs, **changes}


def parse(request: Any, json_bytes: int | None = None, tail: bytes = b"") -> tensors.Request:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return tensors.parse(body + tail, json_bytes, KINDS)


def test_request_in_json_is_read() -> None:
    found = parse(whole(outputs=[{"name": "label"}]))
    assert found.id == "7"
    assert found.rows == 2
    assert {name: list(values) for name, values in found.values.items()} == {
        "age": [1.5, None],
        "visits": [3, 4],
        "trial": [True, False],
        "plan": ["pro", "basic"],
    }
    assert found.outputs == [Wanted("label", is_binary=False)]


def packed(texts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary(parts: dict[str, tuple[str, bytes]], rows: int = 2) -> tuple[bytes, int]:
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [rows, 1],
            "parameters": {"binary_data_size": len(raw)},
        }
        for name, (datatype, raw) in parts.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + b"".join(raw for _, raw in parts.values()), len(head)


def test_request_in_binary_is_read() -> None:
    body, json_bytes = binary(
        {
            "plan": ("BYTES", packed([b"pro", "gr\u00fcn".encode()])),
            "age": ("FP32", np.array([1.5, np.nan], "<f4").tobytes()),
            "trial": ("BOOL", b"\x01\x00"),
            "visits": ("INT16", np.array([-3, 4], "<i2").tobytes()),
        }
    )
    found = tensors.parse(body, json_bytes, KINDS)
    assert found.is_binary
    assert found.outputs is None
    values = {name: list(each) for name, each in found.values.items()}
    assert values["plan"] == ["pro", "gr\u00fcn"]
    assert values["trial"] == [True, False]
    assert values["visits"] == [-3, 4]
    assert values["age"][0] == 1.5
    assert np.isnan(values["age"][1])


def changed(place: int, **changes: Any) -> dict[str, Any]:
    request = whole()
    request["inputs"][place] = {**request["inputs"][place], **changes}
    return request


def without(field: str) -> dict[str, Any]:
    request = whole()
    del request["inputs"][0][field]
    return request


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "not JSON"),
    "NaN in JSON": (
        json.dumps(whole(inputs=[tensor("age", "FP64", [float("nan")])])).encode(),
        "not JSON",
    ),
    "a list": ([], "no JSON object"),
    "no inputs": ({"id": "1"}, "list of tensors"),
    "empty inputs": (whole(inputs=[]), "list of tensors"),
    "inputs that are no list": (whole(inputs={"age": 1}), "list of tensors"),
    "an input that is no object": (whole(inputs=[1]), "inputs.0 is no object"),
    "an unknown field": (whole(model="x"), "field 'model'"),
    "an unknown field of an input": (changed(0, dtype="FP64"), "field 'dtype'"),
    "an id that is no text": (whole(id=7), "id is a text"),
    "an id that is long": (whole(id="7" * 300), "id is a text"),
    "parameters that are no object": (whole(parameters=[]), "parameters: an object"),
    "a flag that is no flag": (
        whole(parameters={"binary_data_output": "yes"}),
        "binary_data_output is true or false",
    ),
    "an unknown name": (changed(0, name="years"), "no input 'years'"),
    "a name that is no text": (changed(0, name=3), "name is needed"),
    "the same name twice": (
        changed(0, name="visits", datatype="INT64", data=[1, 2]),
        "'visits' is given twice",
    ),
    "another datatype": (changed(0, datatype="BYTES"), "datatype is 'BYTES'"),
    "an unknown datatype": (changed(0, datatype="FP128"), "datatype is 'FP128'"),
    "a datatype that is no text": (changed(0, datatype=None), "datatype is 'None'"),
    "no datatype": (without("datatype"), "datatype is 'None'"),
    "no shape": (without("shape"), "shape is a list"),
    "no data": (without("data"), "data is needed"),
    "data that is no list": (changed(0, data="abc"), "data is needed"),
    "a negative shape": (changed(0, shape=[-2]), "from 0 on"),
    "a shape of texts": (changed(0, shape=["2"]), "from 0 on"),
    "a shape of booleans": (changed(0, shape=[True]), "from 0 on"),
    "a shape with too many dimensions": (changed(0, shape=[2, 1, 1]), "it is [rows]"),
    "a shape of several columns": (changed(0, shape=[1, 2]), "it is [rows]"),
    "a shape without dimensions": (changed(0, shape=[]), "it is [rows]"),
    "a shape that the data has not": (changed(0, shape=[3]), "shape [3] says 3"),
    "a shape of 2^31": (changed(0, shape=[2**31]), "says 2,147,483,648"),
    "a shape of 2^64": (changed(0, shape=[2**64, 1]), "from 0 on"),
    "other rows than the rest": (
        changed(1, shape=[1], data=[3]),
        "has 1 rows, and those before it 2",
    ),
    "a whole number out of its type": (
        changed(1, datatype="INT8", data=[300, 1]),
        "300 is no INT8",
    ),
    "a fraction as a whole number": (
        changed(0, datatype="INT32", data=[1.5, 2]),
        "1.5 is no INT32",
    ),
    "an output that is no object": (whole(outputs=["label"]), "a name is needed"),
    "outputs that are no list": (whole(outputs="label"), "list of outputs"),
    "an output by classification": (
        whole(outputs=[{"name": "label", "parameters": {"classification": 2}}]),
        "'classification'",
    ),
    "a NUL": (whole(id="a\0b"), "NUL"),
    "binary data and JSON at once": (
        changed(0, parameters={"binary_data_size": 16}),
        "instead of data",
    ),
}


@pytest.mark.parametrize("what", sorted(WRONG))
def test_wrong_request_is_refused(what: str) -> None:
    request, said = WRONG[what]
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        parse(request)


@pytest.mark.parametrize(
    ("datatype", "raw", "rows", "said"),
    [
        ("FP64", b"\0" * 15, 2, "are 16 bytes, not 15"),
        ("FP64", b"\0" * 24, 2, "are 16 bytes, not 24"),
        ("FP64", b"", 2**31, "bytes, not 0"),
        ("BOOL", b"\x02\x00", 2, "a BOOL is 0 or 1"),
        ("BYTES", packed([b"one"]), 2, "do not make up"),
        ("BYTES", packed([b"one", b"two", b"three"]), 2, "do not make up"),
        ("BYTES", packed([b"one"]) + b"\xff\xff\xff\xffx", 2, "do not make up"),
        ("BYTES", packed([b"one", b"two"])[:-1], 2, "do not make up"),
        ("BYTES", packed([b"one", b"\xff\xfe"]), 2, "no UTF-8"),
        ("BYTES", packed([b"one", b"a\0b"]), 2, "NUL"),
        ("BYTES", packed([b"one", b"two"]) + b"\0", 2, "do not make up"),
    ],
)
def test_binary_data_of_another_size_is_refused(
    datatype: str, raw: bytes, rows: int, said: str
) -> None:
    name = {"FP64": "age", "BOOL": "trial", "BYTES": "plan"}[datatype]
    body, json_bytes = binary({name: (datatype, raw)}, rows)
    with pytest.raises(InvalidRequest, match=said):
        tensors.parse(body, json_bytes, KINDS)


@pytest.mark.parametrize("json_bytes", [0, 10**6])
def test_length_of_the_json_that_cannot_be_is_refused(json_bytes: int) -> None:
    with pytest.raises(InvalidRequest):
        parse(whole(), json_bytes)


def test_bytes_that_belong_to_no_input_are_refused() -> None:
    body, json_bytes = binary({"trial": ("BOOL", b"\x01\x00")})
    with pytest.raises(InvalidRequest, match="belong"):
        tensors.parse(body + b"more", json_bytes, KINDS)


OUTPUTS = (
    Output("label", "BYTES", np.array(["no", "gr\u00fcn"], dtype=object)),
    Output("probabilities", "FP32", np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)),
    Output("flag", "BOOL", np.array([True, False])),
    Output("count", "INT64", np.array([1, -2])),
)


@settings(max_examples=20)
@given(flags=st.lists(st.booleans(), min_size=len(OUTPUTS), max_size=len(OUTPUTS)))
def test_answer_holds_the_outputs_in_whatever_form(flags: list[bool]) -> None:
    body, json_bytes = tensors.write({"model_name": "m"}, list(zip(OUTPUTS, flags, strict=True)))
    assert (json_bytes is not None) == any(flags)
    told = json.loads(body[:json_bytes])
    tail = body[json_bytes:] if json_bytes is not None else b""
    for output, is_binary, found in zip(OUTPUTS, flags, told["outputs"], strict=True):
        assert found["name"] == output.name
        assert found["shape"] == list(output.values.shape)
        assert found["datatype"] == output.datatype
        if not is_binary:
            assert found["data"] == output.values.ravel().tolist()
            continue
        size = found["parameters"]["binary_data_size"]
        raw, tail = tail[:size], tail[size:]
        if output.datatype == "BYTES":
            assert raw == packed([b"no", "gr\u00fcn".encode()])
        else:
            kind = {"FP32": "<f4", "BOOL": "?", "INT64": "<i8"}[output.datatype]
            assert np.frombuffer(raw, kind).tolist() == output.values.ravel().tolist()
    assert tail == b""


@settings(max_examples=25)
@given(
    body=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters"]),
                inner,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(body: Any) -> None:
    try:
        raw = json.dumps(body).encode()
        found = tensors.parse(raw, None, KINDS)
    except InvalidRequest:
        return
    assert found.values.keys() <= KINDS.keys()
