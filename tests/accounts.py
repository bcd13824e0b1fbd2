"""Orders of customers whose outcome hangs on a balance that another table tells by time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from infra.artifacts.store import ArtifactStore
from infra.datasets.datasets import Datasets

START = datetime(2026, 1, 1, tzinfo=UTC)
ZONED = pl.Datetime("us", "UTC")
VIEW: dict[str, Any] = {
    "rows": "dataset/accounts",
    "key": "id",
    "row_key": "customer",
    "time": "known",
    "columns": ["balance", "logins", "segment"],
    "ttl_seconds": 10 * 86_400,
    "lag_seconds": 3_600,
}


def accounts(*, days: int = 40, seed: int = 5) -> pl.DataFrame:
    """Return what is known of 30 customers, every few days; a longer table begins as a shorter."""
    draw = np.random.default_rng(seed)
    rows = [
        {
            "id": f"c{customer}",
            "known": START + timedelta(days=day, hours=customer % 24),
            "balance": None if draw.random() < 0.05 else float(draw.normal(0, 100)),
            "logins": int(draw.integers(0, 9)),
            "segment": ("new", "old", "gone")[int(draw.integers(3))],
            "note": "n",
        }
        for day in range(0, days, 5)
        for customer in range(30)
        if customer < 25 or day > 20
    ]
    return pl.DataFrame(rows, schema_overrides={"known": ZONED})


def orders(count: int = 240, *, seed: int = 6) -> pl.DataFrame:
    """Return orders of these customers, and of two that nobody knows."""
    draw = np.random.default_rng(seed)
    customers = [f"c{draw.integers(32)}" for _ in range(count)]
    seconds = np.sort(draw.integers(0, 50 * 86_400, size=count))
    frame = pl.DataFrame(
        {
            "customer": customers,
            "at": [START + timedelta(seconds=int(each)) for each in seconds],
            "amount": np.round(draw.lognormal(3, 1, size=count), 2),
        },
        schema_overrides={"at": ZONED},
    )
    known = accounts().sort("known").select("id", "known", "balance")
    joined = frame.join_asof(
        known, left_on="at", right_on="known", by_left="customer", by_right="id",
        check_sortedness=False,
    )  # fmt: skip
    paid = (joined["balance"].fill_null(0) + draw.normal(0, 20, size=count) > 0).to_list()
    return frame.with_columns(outcome=pl.Series(["paid" if each else "failed" for each in paid]))


def asked(*views: dict[str, Any], **data: Any) -> dict[str, Any]:
    """Return a specification without candidates."""
    return {
        "version": 1,
        "name": "orders",
        "task": "classification",
        "data": {
            "train": {"rows": "dataset/orders"},
            "target": "outcome",
            "time": "at",
            "features": list(views or (VIEW,)),
            **data,
        },
        "split": {"folds": 2},
        "register": {"name": "orders", "alias": "production"},
    }


def put(store: ArtifactStore) -> None:
    """Store both tables."""
    datasets = Datasets(store)
    datasets.put(accounts(), "accounts")
    datasets.put(orders(), "orders")
