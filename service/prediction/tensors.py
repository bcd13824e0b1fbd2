"""The Open Inference Protocol's tensors: what a request holds, and how an answer is written."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from infra.classical import Kind
from infra.errors import InvalidRequest
from service.bodies import refuse_nul
from service.prediction.columns import Table, flat
from service.prediction.quick import Quick

HEADER = "inference-header-content-length"
"""How many bytes of the body are JSON; tensors in binary follow."""
MAX_ID_CHARACTERS = 256
DATATYPES: Mapping[Kind, str] = {
    "float64": "FP64",
    "int64": "INT64",
    "string": "BYTES",
    "bool": "BOOL",
}
_NUMPY: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.uint8),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_WHOLE = {"INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32"}
_TAKEN: Mapping[Kind, frozenset[str]] = {
    "float64": frozenset({"FP16", "FP32", "FP64", "INT64", *_WHOLE}),
    "int64": frozenset({"INT64", *_WHOLE}),
    "string": frozenset({"BYTES"}),
    "bool": frozenset({"BOOL"}),
}
"""Datatypes of a tensor that hold nothing which the column cannot."""
_REQUEST = frozenset({"id", "inputs", "outputs", "parameters", "model_name", "model_version"})
"""The last two are no part of the protocol; KServe's client repeats there what the path says."""
_INPUT = frozenset({"name", "shape", "datatype", "data", "parameters"})
_OUTPUT = frozenset({"name", "parameters"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for."""

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request as far as it says nothing of the model."""

    id: str | None
    rows: int
    values: Mapping[str, Sequence[Any] | NDArray[Any]]
    """By input, its elements."""
    outputs: Sequence[Wanted] | None
    """None are all."""
    is_binary: bool
    """Whether outputs are binary where they do not say."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    table: Table | None = None
    """The inputs as the model takes them, where nothing was the matter with them; else `values`."""


def parse(
    body: bytes, json_bytes: int | None, kinds: Mapping[str, Kind], *, quick: Quick | None = None
) -> Request:
    """Read a request.

    Args:
        body: of the request.
        json_bytes: how many of them are JSON; None are all.
        kinds: by its name, what each column of the model holds.
        quick: reads a single row that is as most are.

    Raises:
        InvalidRequest: says what is wrong with which part of it.
    """
    given = _object(body, json_bytes)
    _check_keys(given, _REQUEST, "The request")
    parameters = _mapping(given.get("parameters", {}), "parameters")
    inputs = given.get("inputs")
    if type(inputs) is not list or not inputs:
        raise InvalidRequest("inputs: a list of tensors is needed", parameter="inputs")
    is_binary = _flag(parameters, "binary_data_output")
    wanted = _outputs(given.get("outputs"), is_binary=is_binary)
    row = None if quick is None or json_bytes is not None else quick.of_tensors(inputs)
    if row is not None:
        return Request(_id(given), 1, {}, wanted, is_binary, parameters, Table(1, row))
    rows, values = _read(inputs, memoryview(body)[json_bytes or len(body) :], kinds)
    return Request(_id(given), rows, values, wanted, is_binary, parameters)


def _read(
    inputs: Sequence[Any], binary: memoryview, kinds: Mapping[str, Kind]
) -> tuple[int, Mapping[str, Sequence[Any] | NDArray[Any]]]:
    """Return the number of rows, and by input its elements."""
    values: dict[str, Sequence[Any] | NDArray[Any]] = {}
    rows: int | None = None
    for at, item in enumerate(inputs):
        tensor = _Tensor.of(item, at, kinds)
        if tensor.name in values:
            raise InvalidRequest(f"Input {tensor.name!r} is given twice", parameter="inputs")
        if rows is not None and tensor.rows != rows:
            raise InvalidRequest(
                f"Input {tensor.name!r} has {tensor.rows} rows, and those before it {rows}",
                parameter="inputs",
            )
        rows = tensor.rows
        if tensor.binary_bytes is None:
            values[tensor.name] = _from_json(tensor, item.get("data"))
        else:
            values[tensor.name] = _from_binary(tensor, binary)
            binary = binary[tensor.binary_bytes :]
    if len(binary):
        raise InvalidRequest(f"{len(binary):,} bytes of the body belong to no input")
    return rows or 0, values


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    rows: int
    binary_bytes: int | None

    @classmethod
    def of(cls, item: Any, at: int, kinds: Mapping[str, Kind]) -> _Tensor:
        if type(item) is not dict:
            raise InvalidRequest(f"inputs.{at} is no object", parameter="inputs")
        _check_keys(item, _INPUT, f"inputs.{at}")
        name, datatype = item.get("name"), item.get("datatype")
        if type(name) is not str:
            raise InvalidRequest(f"inputs.{at}: name is needed, a text", parameter="inputs")
        kind = kinds.get(name)
        if kind is None:
            known = ", ".join(map(repr, list(kinds)[:10]))
            raise InvalidRequest(
                f"The model has no input {name[:100]!r}; it has {known}", parameter="inputs"
            )
        if type(datatype) is not str or datatype not in _TAKEN[kind]:
            raise InvalidRequest(
                f"Input {name!r}: the datatype is {str(datatype)[:40]!r}; "
                f"give one of {', '.join(sorted(_TAKEN[kind]))}",
                parameter="inputs",
            )
        shape = _shape(item.get("shape"), name)
        size = _mapping(item.get("parameters", {}), f"inputs.{at}.parameters").get(
            "binary_data_size"
        )
        if size is not None and (type(size) is not int or size < 0 or "data" in item):
            raise InvalidRequest(
                f"Input {name!r}: binary_data_size is a whole number, instead of data",
                parameter="inputs",
            )
        return cls(name, datatype, shape, shape[0], size)


def _object(body: bytes, json_bytes: int | None) -> dict[str, Any]:
    if json_bytes is not None and not 0 < json_bytes <= len(body):
        raise InvalidRequest(
            f"{HEADER} is {json_bytes}, and the body has {len(body):,} bytes", parameter=HEADER
        )
    raw = body if json_bytes is None else body[:json_bytes]
    try:
        given = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}") from None
    if type(given) is not dict:
        raise InvalidRequest("The body is no JSON object")
    if b"\\u0000" in raw:
        refuse_nul(given)
    return given


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    """Return (rows,) or (rows, 1): a column has one value a row."""
    if type(shape) is not list or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(
            f"Input {name!r}: the shape is a list of whole numbers from 0 on", parameter="inputs"
        )
    if not 1 <= len(shape) <= 2 or (len(shape) == 2 and shape[1] != 1):
        raise InvalidRequest(
            f"Input {name!r}: the shape is {str(shape)[:60]}; it is [rows] or [rows, 1]",
            parameter="inputs",
        )
    return tuple(shape)


def _from_json(tensor: _Tensor, data: Any) -> Sequence[Any]:
    if type(data) is not list:
        raise InvalidRequest(f"Input {tensor.name!r}: data is needed, a list", parameter="inputs")
    values = flat(data, tensor.shape)
    if "INT" in tensor.datatype:
        _check_whole(tensor, values)
    return values


def _check_whole(tensor: _Tensor, values: Sequence[Any]) -> None:
    bounds = np.iinfo(_NUMPY[tensor.datatype])
    for value in values:
        if value is not None and (type(value) is not int or not bounds.min <= value <= bounds.max):
            raise InvalidRequest(
                f"Input {tensor.name!r}: {repr(value)[:60]} is no {tensor.datatype}",
                parameter="inputs",
            )


def _from_binary(tensor: _Tensor, binary: memoryview) -> Sequence[Any] | NDArray[Any]:
    size = tensor.binary_bytes or 0
    if size > len(binary):
        raise InvalidRequest(
            f"Input {tensor.name!r} has {size:,} bytes, and {len(binary):,} are left in the body",
            parameter="inputs",
        )
    raw = binary[:size]
    if tensor.datatype == "BYTES":
        return _texts(tensor, raw)
    kind = _NUMPY[tensor.datatype]
    if size != tensor.rows * kind.itemsize:
        raise InvalidRequest(
            f"Input {tensor.name!r}: {tensor.rows} of {tensor.datatype} are "
            f"{tensor.rows * kind.itemsize:,} bytes, not {size:,}",
            parameter="inputs",
        )
    values: NDArray[Any] = np.frombuffer(raw, kind)
    if tensor.datatype == "BOOL":
        if values.size and values.max() > 1:
            raise InvalidRequest(f"Input {tensor.name!r}: a BOOL is 0 or 1", parameter="inputs")
        return values.astype(np.bool_)
    return values.astype(np.float64 if kind.kind == "f" else np.int64)


def _texts(tensor: _Tensor, raw: memoryview) -> list[str]:
    """Return the texts of a BYTES tensor: of each its length in four bytes, then UTF-8."""
    texts: list[str] = []
    at, end = 0, len(raw)
    while at < end and len(texts) <= tensor.rows:
        length = int.from_bytes(raw[at : at + 4], "little") if at + 4 <= end else end
        at += 4
        if at + length > end:
            break
        try:
            texts.append(str(raw[at : at + length], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"Input {tensor.name!r}: element {len(texts)} is no UTF-8", parameter="inputs"
            ) from None
        at += length
    if at != end or len(texts) != tensor.rows:
        raise InvalidRequest(
            f"Input {tensor.name!r}: its bytes do not make up {tensor.rows} elements",
            parameter="inputs",
        )
    if any("\0" in text for text in texts):
        raise InvalidRequest(f"Input {tensor.name!r} holds a NUL character", parameter="inputs")
    return texts


def _outputs(given: Any, *, is_binary: bool) -> list[Wanted] | None:
    if given is None:
        return None
    if type(given) is not list:
        raise InvalidRequest("outputs: a list of outputs is meant", parameter="outputs")
    found = []
    for at, item in enumerate(given):
        if type(item) is not dict or type(item.get("name")) is not str:
            raise InvalidRequest(f"outputs.{at}: a name is needed", parameter="outputs")
        _check_keys(item, _OUTPUT, f"outputs.{at}")
        parameters = _mapping(item.get("parameters", {}), f"outputs.{at}.parameters")
        if "classification" in parameters:
            raise InvalidRequest(
                "outputs: the extension 'classification' is not spoken; ask for probabilities",
                parameter="outputs",
            )
        binary = _flag(parameters, "binary_data", default=is_binary)
        found.append(Wanted(item["name"], binary))
    return found


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidRequest(f"{name} is true or false", parameter=name)
    return value


def _id(given: Mapping[str, Any]) -> str | None:
    value = given.get("id")
    if value is not None and (type(value) is not str or len(value) > MAX_ID_CHARACTERS):
        raise InvalidRequest(
            f"id is a text of at most {MAX_ID_CHARACTERS} characters", parameter="id"
        )
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise InvalidRequest(f"{name}: an object is meant", parameter=name)
    return value


def _check_keys(given: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    if not given.keys() <= known:
        strange = sorted(given.keys() - known)[0]
        raise InvalidRequest(
            f"{what} has a field {strange[:60]!r}, which the protocol does not know"
        )


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of an answer."""

    name: str
    datatype: str
    values: NDArray[Any]


def write(head: dict[str, Any], outputs: Sequence[tuple[Output, bool]]) -> tuple[bytes, int | None]:
    """Return the body of an answer, and how many of its bytes are JSON where not all are.

    Args:
        head: the answer but for its outputs.
        outputs: each with whether it is to be binary.
    """
    told, tail = [], []
    for output, is_binary in outputs:
        values = output.values
        item: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(values.shape),
        }
        if is_binary:
            raw = _packed(output)
            item["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            is_text = values.dtype.kind == "O"
            item["data"] = values.ravel().tolist() if is_text else values.ravel()
        told.append(item)
    body = orjson.dumps({**head, "outputs": told}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (body + b"".join(tail), len(body)) if tail else (body, None)


def _packed(output: Output) -> bytes:
    if output.datatype == "BYTES":
        texts = [str(text).encode() for text in output.values.ravel()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    packed: NDArray[Any] = output.values.astype(_NUMPY[output.datatype])
    return packed.tobytes()
