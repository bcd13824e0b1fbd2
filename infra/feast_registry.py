"""The registry file of a Feast repository, read by the fields that a join needs, without Feast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.plugins import require

EXTRA = "classical"
MAX_BYTES = 64 << 20
BATCH_FILE = 1
"""A data source that is a file."""
_PACKAGE = "ragstone.feast"
_TEXT, _ENUM, _SECONDS = 9, 5, 3
"""Types of fields: text, a number that stands for a word (on the wire as any), a large number."""
_FIELDS: dict[str, dict[str, tuple[int, int | str, bool]]] = {
    "Registry": {
        "entities": (1, "Entity", True),
        "feature_views": (6, "FeatureView", True),
        "feature_services": (7, "FeatureService", True),
        "on_demand_feature_views": (8, "OtherView", True),
        "stream_feature_views": (14, "OtherView", True),
    },
    "Entity": {"spec": (1, "EntitySpec", False)},
    "EntitySpec": {
        "name": (1, _TEXT, False),
        "join_key": (4, _TEXT, False),
        "project": (9, _TEXT, False),
    },
    "FeatureView": {"spec": (1, "FeatureViewSpec", False)},
    "FeatureViewSpec": {
        "name": (1, _TEXT, False),
        "project": (2, _TEXT, False),
        "entities": (3, _TEXT, True),
        "features": (4, "Feature", True),
        "ttl": (6, "Duration", False),
        "batch_source": (7, "DataSource", False),
    },
    # Of views that are refused by name; other numbers mean something else than above.
    "OtherView": {"spec": (1, "OtherViewSpec", False)},
    "OtherViewSpec": {"name": (1, _TEXT, False), "project": (2, _TEXT, False)},
    "Feature": {"name": (1, _TEXT, False)},
    "Duration": {"seconds": (1, _SECONDS, False), "nanos": (2, _ENUM, False)},
    "DataSource": {
        "type": (1, _ENUM, False),
        "field_mapping": (2, "Mapped", True),
        "timestamp_field": (3, _TEXT, False),
        "created_timestamp_column": (5, _TEXT, False),
        "file_options": (11, "FileOptions", False),
    },
    "Mapped": {"key": (1, _TEXT, False), "value": (2, _TEXT, False)},
    "FileOptions": {"uri": (2, _TEXT, False)},
    "FeatureService": {"spec": (1, "FeatureServiceSpec", False)},
    "FeatureServiceSpec": {
        "name": (1, _TEXT, False),
        "project": (2, _TEXT, False),
        "features": (3, "Projection", True),
    },
    "Projection": {
        "feature_view_name": (1, _TEXT, False),
        "feature_columns": (2, "Feature", True),
        "feature_view_name_alias": (3, _TEXT, False),
        "join_key_map": (4, "Mapped", True),
    },
}
"""By message, its fields: number, type, whether it is a list. The names are those of Feast's
`protos/feast/core`, whose numbers never change; fields that are not listed here are passed over."""


def read(path: Path) -> Any:
    """Return a registry as a message with the fields above.

    Raises:
        NotFound: there is no such file.
        TooLarge: it is larger than any is.
        InvalidRequest: it is no registry.
    """
    message = require("google.protobuf.message", extra=EXTRA)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFound("registry of Feast; run `feast apply` in its folder", str(path)) from None
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{str(path)!r} is larger than {MAX_BYTES:,} bytes")
    found = _message("Registry")
    try:
        found.ParseFromString(data)
    except message.DecodeError:
        raise InvalidRequest(f"{str(path)!r} is no registry of Feast") from None
    return found


def _message(name: str) -> Any:
    descriptors = require("google.protobuf.descriptor_pb2", extra=EXTRA)
    pools = require("google.protobuf.descriptor_pool", extra=EXTRA)
    factory = require("google.protobuf.message_factory", extra=EXTRA)
    file = descriptors.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    kinds = descriptors.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for field, (number, kind, is_list) in fields.items():
            added = described.field.add(name=field, number=number)
            added.label = kinds.LABEL_REPEATED if is_list else kinds.LABEL_OPTIONAL
            added.type = kinds.TYPE_MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                added.type_name = f".{_PACKAGE}.{kind}"
    pool = pools.DescriptorPool()  # its own: Feast may be in the same process
    pool.AddSerializedFile(file.SerializeToString())
    found = pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return factory.GetMessageClass(found)()
