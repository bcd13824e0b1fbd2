"""What both versions predicted, on both kinds of databases: a row of each request, in rounds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.database.monitoring_tables import feedback
from monitoring import prediction_logs
from monitoring.prediction_pairs import Found, Wanted, copy_of, read, read_labelled

AT = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = Wanted("model/churn", "churn@v1", "churn@v2", AT, 3)
PREDICTIONS = ["yes", 1.5, True, None, 7]
"""Of requests one after the other; of the fourth nothing is kept."""
PLAIN: dict[str, Any] = {
    "at": AT,
    "kind": "prediction",
    "model": "model/churn",
    "outcome": "answered",
    "status": 200,
    "tag": "live",
    "source": "provider",
    "seconds": 0.25,
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano"), 0),
}


def fill(database: Database) -> None:
    """Record five requests of twelve rows each, and labels of four of them."""
    rows, said = [], []
    for number, prediction in enumerate(PREDICTIONS):
        for row in range(12):
            id_ = f"pred-{number}a1-{row}"
            content = {"prediction": prediction, "features": {"age": number, "plan": None}}
            kept = None if prediction is None else content
            told = {"id": id_, "upstream": "churn@v1", "content": kept}
            rows.append({**PLAIN, **told})
            rows.append({**PLAIN, **told, "id": copy_of(id_), "upstream": "churn@v2"})
    # The last is labelled first, each by two rows, and the row that was first once more.
    for number in (4, 2, 1, 0):
        for row, label in ((11, "a"), (0, "b"), (11, "c")):
            said.append((f"pred-{number}a1-{row}", label))
    with database.write() as connection:
        connection.execute(insert(interaction), rows)
        connection.execute(
            insert(feedback),
            [
                {
                    "id": str(place),
                    "interaction_id": id_,
                    "at": AT,
                    "kind": "label",
                    "value": label,
                    "digest": str(place),
                }
                for place, (id_, label) in enumerate(said)
            ],
        )


def seen(found: Found) -> list[tuple[str, Any, str | None]]:
    return [(each.request, each.live.prediction, each.label) for each in found.pairs]


def test_requests_are_read_once_in_rounds(database: Database) -> None:
    fill(database)
    found = read(database, WANTED)
    assert (found.known, found.rounds) == (5, 1)
    assert seen(found) == [("pred-3a1", None, None), ("pred-4a1", 7, None)]
    labelled = read_labelled(database, WANTED)
    assert (labelled.known, labelled.rounds) == (4, 1)
    assert seen(labelled) == [("pred-0a1", "yes", "a"), ("pred-0a1", "yes", "c")]
    whole = read_labelled(database, Wanted("model/churn", "churn@v1", "churn@v2", AT, 4))
    assert [each.request for each in whole.pairs[::2]] == [
        f"pred-{each}a1" for each in (4, 2, 1, 0)
    ]
    assert [each.live.prediction for each in whole.pairs[::2]] == [7, True, 1.5, "yes"]
    nothing = read(database, Wanted("model/other", "churn@v1", "churn@v2", AT, 3))
    assert (nothing.pairs, nothing.known, nothing.rounds) == ((), 0, 0)


def test_latest_rows_of_a_log_are_read_with_their_features_and_labels(database: Database) -> None:
    fill(database)
    assert prediction_logs.count(database, "model/churn") == 60
    (batch,) = prediction_logs.read(database, "model/churn", most=13)
    assert len(batch) == 12, "of the one before nothing is kept"
    assert (batch[0].features, batch[0].label) == ({"age": 4, "plan": None}, "b")
    assert batch[11].label == "c"
    assert (
        len(
            [row for rows in prediction_logs.read(database, "model/churn", most=99) for row in rows]
        )
        == 48
    )
