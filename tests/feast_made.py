"""A repository that Feast made of the accounts of the tests, and how it made it.

`python tests/feast_made.py FOLDER`, where Feast is installed, prints `REGISTRY` anew.
"""

from __future__ import annotations

import base64
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

import accounts

SETTINGS = """\
project: shop
provider: local
registry: data/registry.db
offline_store: {type: file}
online_store: {type: sqlite, path: data/online.db}
entity_key_serialization_version: 3
"""
REGISTRY = """
CjYKFgoIY3VzdG9tZXIQAiICaWRKBHNob3ASHAoMCKfHttgGEJidr4ICEgwIp8e22AYQmJ2vggIK
NAoUCgRpdGVtEAQiBGl0ZW1KBHNob3ASHAoMCKfHttgGEKCytYICEgwIp8e22AYQoLK1ggIKOwob
CgdfX2R1bW15IgpfX2R1bW15X2lkSgRzaG9wEhwKDAinx7bYBhDQk7qCAhIMCKfHttgGENCTuoIC
GgExIiQzYzBmZjBkNS0zMWM4LTQ3MGUtOWIyYi1hMWMzNDc0YzYwZmMqDAinx7bYBhCIsd3JAjL1
AQrUAQoIYWNjb3VudHMSBHNob3AaCGN1c3RvbWVyIgsKB2JhbGFuY2UQBSIKCgZsb2dpbnMQBCIL
CgdzZWdtZW50EAIyBAiA3jQ6eQgBGgVrbm93bloXEhVkYXRhL2FjY291bnRzLnBhcnF1ZXSKATFm
ZWFzdC5pbmZyYS5vZmZsaW5lX3N0b3Jlcy5maWxlX3NvdXJjZS5GaWxlU291cmNlogEBa5IDHBoM
CKXHttgGEOCvufcCIgwIp8e22AYQ6JTG/QFAAWIGCgJpZBACkgEGbGF0ZXN0EhwKDAinx7bYBhDw
veOBAhIMCKfHttgGEPC944ECMvQBCtMBCgZ2aXNpdHMSBHNob3AaCGN1c3RvbWVyIgoKBnZpc2l0
cxAEMgA6lwEIARILCgFuEgZ2aXNpdHMSCQoDd2hvEgJpZBoEc2VlbioHY3JlYXRlZFoVEhNkYXRh
L3Zpc2l0cy5wYXJxdWV0igExZmVhc3QuaW5mcmEub2ZmbGluZV9zdG9yZXMuZmlsZV9zb3VyY2Uu
RmlsZVNvdXJjZaIBAXOSAxwaDAilx7bYBhCYr8H3AiIMCKfHttgGEIDXy4ECQAFiBgoCaWQQApIB
BmxhdGVzdBIcCgwIp8e22AYQ4ICHggISDAinx7bYBhDggIeCAjKDAgriAQoFcGFpcnMSBHNob3Aa
CGN1c3RvbWVyGgRpdGVtIgoKBnZpc2l0cxAEMgA6lwEIARILCgFuEgZ2aXNpdHMSCQoDd2hvEgJp
ZBoEc2VlbioHY3JlYXRlZFoVEhNkYXRhL3Zpc2l0cy5wYXJxdWV0igExZmVhc3QuaW5mcmEub2Zm
bGluZV9zdG9yZXMuZmlsZV9zb3VyY2UuRmlsZVNvdXJjZaIBAXOSAxwaDAilx7bYBhCYr8H3AiIM
CKfHttgGEIDXy4ECQAFiBgoCaWQQAmIICgRpdGVtEASSAQZsYXRlc3QSHAoMCKfHttgGEPCSm4IC
EgwIp8e22AYQ8JKbggI6wgIKoQIKBHJpc2sSBHNob3AaeAoIYWNjb3VudHMSCwoHc2VnbWVudBAC
EgsKB2JhbGFuY2UQBUJFCAEaBWtub3duWhcSFWRhdGEvYWNjb3VudHMucGFycXVldKIBAWuSAxwa
DAilx7bYBhDgr7n3AiIMCKfHttgGEOiUxv0BWgtmZWF0dXJlVmlldxqYAQoGdmlzaXRzEgoKBnZp
c2l0cxAEKgdjcmVhdGVkOgdjcmVhdGVkQmMIARILCgFuEgZ2aXNpdHMSCQoDd2hvEgJpZBoEc2Vl
bioHY3JlYXRlZFoVEhNkYXRhL3Zpc2l0cy5wYXJxdWV0ogEBc5IDHBoMCKXHttgGEJivwfcCIgwI
p8e22AYQgNfLgQJaC2ZlYXR1cmVWaWV3EhwKDAinx7bYBhD4x8CCAhIMCKfHttgGEPjHwIICOt8B
Cr4BCgdzZWxsZXJzEgRzaG9wGqwBCgZ2aXNpdHMSCgoGdmlzaXRzEAQaBHNvbGQiDAoCaWQSBnNl
bGxlcioHY3JlYXRlZDoHY3JlYXRlZEJjCAESCwoBbhIGdmlzaXRzEgkKA3dobxICaWQaBHNlZW4q
B2NyZWF0ZWRaFRITZGF0YS92aXNpdHMucGFycXVldKIBAXOSAxwaDAilx7bYBhCYr8H3AiIMCKfH
ttgGEIDXy4ECWgtmZWF0dXJlVmlldxIcCgwIp8e22AYQsLLPggISDAinx7bYBhCwss+CAmKAAQgB
GgVrbm93bloXEhVkYXRhL2FjY291bnRzLnBhcnF1ZXSKATFmZWFzdC5pbmZyYS5vZmZsaW5lX3N0
b3Jlcy5maWxlX3NvdXJjZS5GaWxlU291cmNlogEBa6oBBHNob3CSAxwaDAilx7bYBhDgr7n3AiIM
CKfHttgGEOiUxv0BYp4BCAESCwoBbhIGdmlzaXRzEgkKA3dobxICaWQaBHNlZW4qB2NyZWF0ZWRa
FRITZGF0YS92aXNpdHMucGFycXVldIoBMWZlYXN0LmluZnJhLm9mZmxpbmVfc3RvcmVzLmZpbGVf
c291cmNlLkZpbGVTb3VyY2WiAQFzqgEEc2hvcJIDHBoMCKXHttgGEJivwfcCIgwIp8e22AYQgNfL
gQJ6LAoEc2hvcBIkNjNiMGJhYjMtYmJmMS00MmRjLThhY2QtZDQ5YTUxOWMyMmE4igEmCgYKBHNo
b3ASHAoMCKfHttgGENDv1P0BEgwIp8e22AYQ0O/U/QGSAe8HCsoCCghhY2NvdW50cxIEc2hvcCIM
ZmVhdHVyZV92aWV3KvUBCtQBCghhY2NvdW50cxIEc2hvcBoIY3VzdG9tZXIiCwoHYmFsYW5jZRAF
IgoKBmxvZ2lucxAEIgsKB3NlZ21lbnQQAjIECIDeNDp5CAEaBWtub3duWhcSFWRhdGEvYWNjb3Vu
dHMucGFycXVldIoBMWZlYXN0LmluZnJhLm9mZmxpbmVfc3RvcmVzLmZpbGVfc291cmNlLkZpbGVT
b3VyY2WiAQFrkgMcGgwIpce22AYQ4K+59wIiDAinx7bYBhDolMb9AUABYgYKAmlkEAKSAQZsYXRl
c3QSHAoMCKfHttgGEPC944ECEgwIp8e22AYQ8L3jgQIyDAinx7bYBhCgyISCAkIkYjVhZTgwODYt
NTRmNy00ODI4LTliOWItNGVkOTlkNjM4ZWFlCscCCgZ2aXNpdHMSBHNob3AiDGZlYXR1cmVfdmll
dyr0AQrTAQoGdmlzaXRzEgRzaG9wGghjdXN0b21lciIKCgZ2aXNpdHMQBDIAOpcBCAESCwoBbhIG
dmlzaXRzEgkKA3dobxICaWQaBHNlZW4qB2NyZWF0ZWRaFRITZGF0YS92aXNpdHMucGFycXVldIoB
MWZlYXN0LmluZnJhLm9mZmxpbmVfc3RvcmVzLmZpbGVfc291cmNlLkZpbGVTb3VyY2WiAQFzkgMc
GgwIpce22AYQmK/B9wIiDAinx7bYBhCA18uBAkABYgYKAmlkEAKSAQZsYXRlc3QSHAoMCKfHttgG
EOCAh4ICEgwIp8e22AYQ4ICHggIyDAinx7bYBhCosJmCAkIkZmMzNzU2NzAtYTQ3Zi00MzY1LTgy
YjMtZTAwMzA3MjY3MzE2CtUCCgVwYWlycxIEc2hvcCIMZmVhdHVyZV92aWV3KoMCCuIBCgVwYWly
cxIEc2hvcBoIY3VzdG9tZXIaBGl0ZW0iCgoGdmlzaXRzEAQyADqXAQgBEgsKAW4SBnZpc2l0cxIJ
CgN3aG8SAmlkGgRzZWVuKgdjcmVhdGVkWhUSE2RhdGEvdmlzaXRzLnBhcnF1ZXSKATFmZWFzdC5p
bmZyYS5vZmZsaW5lX3N0b3Jlcy5maWxlX3NvdXJjZS5GaWxlU291cmNlogEBc5IDHBoMCKXHttgG
EJivwfcCIgwIp8e22AYQgNfLgQJAAWIGCgJpZBACYggKBGl0ZW0QBJIBBmxhdGVzdBIcCgwIp8e2
2AYQ8JKbggISDAinx7bYBhDwkpuCAjIMCKfHttgGEIjSrYICQiQ5NzM4Y2YwOC00YTdjLTQ0Y2Qt
YjU1Mi1lZGFkYzk2NGEyMmY=
"""
"""What Feast 0.67 wrote."""


def _field(number: int, value: bytes) -> bytes:
    """Return a short field of text or of a message, as protobuf writes it."""
    return bytes([number << 3 | 2, len(value)]) + value


def _views_of_other_kinds() -> bytes:
    """Return more of a registry: views that have no table, by the numbers of Feast's protos."""
    tag = _field(1, b"team") + _field(2, b"risk")
    told = _field(6, b"Made up when it is asked for.") + _field(7, tag) + _field(8, b"ada")
    feature = _field(1, b"ratio")
    on_demand = _field(1, b"ratios") + _field(2, b"shop") + _field(3, feature) + told
    stream = _field(1, b"clicks") + _field(2, b"shop") + _field(3, b"customer")
    stream += _field(4, feature) + told + _field(14, b"spark")
    return _field(8, _field(1, on_demand)) + _field(14, _field(1, stream))


def visits() -> pl.DataFrame:
    """Return what is known of visits: columns have other names, and one row was corrected."""
    hours = [accounts.START + timedelta(hours=each) for each in (0, 24, 24, 48)]
    created = [each + timedelta(minutes=at) for each, at in zip(hours, (1, 9, 5, 1), strict=True)]
    return pl.DataFrame(
        {
            "who": ["c1"] * 4,
            "seen": [each.replace(tzinfo=None) for each in hours],
            "created": created,
            "n": [1, 22, 2, 3],
        }
    )


def lay_out(folder: Path, *, is_applied: bool = True) -> Path:
    """Write the settings, the offline store, and the registry as Feast left it."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").write_text(SETTINGS)
    accounts.accounts().write_parquet(folder / "data" / "accounts.parquet")
    visits().write_parquet(folder / "data" / "visits.parquet")
    if is_applied:
        # A message followed by more fields is one message.
        written = base64.b64decode(REGISTRY) + _views_of_other_kinds()
        (folder / "data" / "registry.db").write_bytes(written)
    return folder


def apply(folder: Path) -> Any:
    """Have Feast itself apply the definitions; returns its store."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
    from feast import ValueType as Kind
    from feast.types import Float64, Int64, String

    customer = Entity(name="customer", join_keys=["id"], value_type=Kind.STRING)
    item = Entity(name="item", join_keys=["item"], value_type=Kind.INT64)
    known = FileSource(name="k", path="data/accounts.parquet", timestamp_field="known")
    seen = FileSource(
        name="s",
        path="data/visits.parquet",
        timestamp_field="seen",
        created_timestamp_column="created",
        field_mapping={"who": "id", "n": "visits"},
    )
    schema = [
        Field(name="id", dtype=String),
        Field(name="balance", dtype=Float64),
        Field(name="logins", dtype=Int64),
        Field(name="segment", dtype=String),
    ]
    number = [Field(name="visits", dtype=Int64)]
    views = [
        FeatureView(
            name="accounts", entities=[customer], ttl=timedelta(days=10), schema=schema,
            source=known,
        ),
        FeatureView(name="visits", entities=[customer], schema=[*schema[:1], *number], source=seen),
        FeatureView(name="pairs", entities=[customer, item], schema=number, source=seen),
    ]  # fmt: skip
    taken = views[0][["segment", "balance"]]
    services = [
        FeatureService(name="risk", features=[taken, views[1]]),
        FeatureService(
            name="sellers",
            features=[views[1].with_name("sold").with_join_key_map({"id": "seller"})],
        ),
    ]
    store = FeatureStore(repo_path=str(folder))
    store.apply([customer, item, *views, *services])
    return store


if __name__ == "__main__":
    made = lay_out(Path(sys.argv[1]), is_applied=False)
    apply(made)
    sys.stdout.write(base64.encodebytes((made / "data" / "registry.db").read_bytes()).decode())
