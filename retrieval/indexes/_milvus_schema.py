"""The Milvus collections that an index keeps: chunks with vectors and terms, and watermarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.plugins import require

WATERMARKS = "ragstone_watermarks"
"""The Milvus collection that says how far each of the others has followed its change log."""


def create(
    client: Any, name: str, *, dimension: int, index_type: str, index_params: Mapping[str, Any]
) -> None:
    """Create the collection of one index; `index_type` and `index_params` are of its vectors."""
    milvus = require("pymilvus", extra="milvus")
    kind = milvus.DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("chunk_id", kind.INT64, is_primary=True)
    schema.add_field("document_id", kind.INT64)
    # Words are opaque and split at spaces, which the standard tokenizer does everywhere.
    words = {"tokenizer": "standard"}
    schema.add_field(
        "terms", kind.VARCHAR, max_length=65_535, enable_analyzer=True, analyzer_params=words
    )
    schema.add_field("vector", kind.FLOAT_VECTOR, dim=dimension)
    schema.add_field("sparse", kind.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        milvus.Function(
            name="bm25",
            function_type=milvus.FunctionType.BM25,
            input_field_names=["terms"],
            output_field_names=["sparse"],
        )
    )
    indexes = client.prepare_index_params()
    indexes.add_index(
        "vector",
        index_type=index_type,
        metric_type="IP",
        params={"params": dict(index_params)},
    )
    # Twice `params`: pymilvus unpacks the outer one, and Milvus Lite reads only the inner one.
    bm25 = {"params": {"bm25_k1": 1.2, "bm25_b": 0.75}}
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=bm25)
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")


def create_watermarks(client: Any) -> None:
    """Create the collection `WATERMARKS`."""
    kind = require("pymilvus", extra="milvus").DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", kind.VARCHAR, max_length=255, is_primary=True)
    schema.add_field("watermark", kind.INT64)
    schema.add_field("nothing", kind.FLOAT_VECTOR, dim=2)  # Milvus takes no rows without a vector
    indexes = client.prepare_index_params()
    indexes.add_index("nothing", index_type="FLAT", metric_type="IP")
    client.create_collection(
        WATERMARKS, schema=schema, index_params=indexes, consistency_level="Strong"
    )


def dimension_of(description: Mapping[str, Any]) -> int:
    """Return how many numbers a vector of the described collection has."""
    [field_] = [each for each in description["fields"] if each["name"] == "vector"]
    return int(field_["params"]["dim"])
