"""Predictions of classical models: the Open Inference Protocol, and rows by column name."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.schemas.shared import Input


class InferenceError(BaseModel):
    """The protocol's error."""

    error: str


V2_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": InferenceError, "description": "The request cannot be served as it is"},
    "5XX": {"model": InferenceError, "description": "The server cannot serve it now"},
}


class Live(BaseModel):
    live: Literal[True] = True


class Ready(BaseModel):
    ready: Literal[True] = True


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ModelReady(BaseModel):
    name: str
    ready: Literal[True] = True


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexBody(Input):
    ready: bool = Field(False, description="Only those that are loaded.")


class IndexEntry(BaseModel):
    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class RepositoryBody(Input):
    parameters: dict[str, bool | int | float | str] | None = None


class ModelUnloaded(BaseModel):
    name: str
    ready: Literal[False] = False


def _optional(kind: type[BaseModel]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


INDEX = _optional(IndexBody)
REPOSITORY = _optional(RepositoryBody)
INDEX_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": list[IndexEntry], "description": "The models, by name"}
}
READY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": ModelReady, "description": "It is loaded"}
}
UNLOADED_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": ModelUnloaded, "description": "It is unloaded"}
}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "number", "string"]},
}
_TENSOR = {
    "name": {"type": "string"},
    "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    "datatype": {"type": "string"},
    "parameters": _PARAMETERS,
    "data": {"type": "array"},
}
_INFER_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {"binary_data_output": {"type": "boolean"}},
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "additionalProperties": False,
                "properties": _TENSOR,
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {"binary_data": {"type": "boolean"}},
                    },
                },
            },
        },
    },
}
_INFER_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": _TENSOR,
            },
        },
    },
}
INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _INFER_REQUEST},
        },
    }
}
INFER_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs; in binary where that was asked for",
        "content": {"application/json": {"schema": _INFER_ANSWER}},
    }
}
_VALUE = {"type": ["number", "string", "boolean", "null"]}
PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "rows"],
                    "additionalProperties": False,
                    "properties": {
                        "model": {
                            "type": "string",
                            "minLength": 1,
                            "description": "NAME, NAME@v3 or NAME@ALIAS; model/ may stand before.",
                        },
                        "rows": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "object", "additionalProperties": _VALUE},
                        },
                        "explain": {
                            "type": "boolean",
                            "description": "Add what each feature contributes; of linear models.",
                        },
                        "stored": {
                            "type": "boolean",
                            "description": "Whether what a job stored may answer; by default yes.",
                        },
                    },
                }
            }
        },
    }
}
PREDICT_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A prediction for each row, in order",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["id", "object", "model", "predictions", "warnings"],
                    "properties": {
                        "id": {"type": "string"},
                        "object": {"const": "prediction"},
                        "model": {"type": "string"},
                        "views": {
                            "type": "object",
                            "additionalProperties": {"type": "string"},
                            "description": "By feature view, the version that was joined.",
                        },
                        "stored": {
                            "type": "object",
                            "required": ["predictions", "at"],
                            "properties": {
                                "predictions": {"type": "string"},
                                "at": {"type": "string", "format": "date-time"},
                            },
                            "description": "Where the answer was taken from, and since when.",
                        },
                        "predictions": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["id", "prediction"],
                                "properties": {
                                    "id": {"type": "string"},
                                    "prediction": _VALUE,
                                    "probabilities": {
                                        "type": "object",
                                        "additionalProperties": {"type": "number"},
                                    },
                                    "explanation": {"type": "object"},
                                },
                            },
                        },
                        "warnings": {"type": "array", "items": {"type": "object"}},
                    },
                }
            }
        },
    }
}
