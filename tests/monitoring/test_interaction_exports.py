"""What is kept of predictions has columns of its own, of one type each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from infra.artifacts.store import open_store
from infra.contracts import Interaction
from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from monitoring import interaction_exports
from monitoring.interactions import Interactions, Query
from monitoring.references import open_reference

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def add(database: Database, *contents: dict[str, Any] | None, kind: Any = "prediction") -> None:
    log = Interactions(database)
    for number, content in enumerate(contents):
        at = NOON + timedelta(seconds=number)
        log.add(Interaction(f"{kind}-{number}", kind, at, "m", "answered", 200, content=content))
    log.flush()


def test_features_predictions_and_probabilities_are_columns(database: Database) -> None:
    add(
        database,
        {"features": {"age": 40, "plan": "a", "new": True}, "prediction": "x"},
        {"features": {"age": None, "plan": 7}, "prediction": "y", "probabilities": [0.2, 0.8]},
        {"prediction": "z", "probabilities": {"x": 0.5}},
        None,
    )
    table = interaction_exports.table_of(database, Query())
    found = {name: table.column(name).to_pylist() for name in table.column_names if "." in name}
    assert found == {
        "feature.age": [40.0, None, None, None],
        "feature.plan": ["a", "7", None, None],
        "feature.new": ["True", None, None, None],
        "probability.0": [None, 0.2, None, None],
        "probability.1": [None, 0.8, None, None],
        "probability.x": [None, None, 0.5, None],
    }
    assert table.column("prediction").to_pylist() == ["x", "y", "z", None]


def test_content_of_answers_is_no_feature_and_columns_can_be_chosen(database: Database) -> None:
    content = {"question": "Why?", "features": {"age": 1}, "prediction": "x"}
    add(database, content, kind="answer")
    assert "feature.age" not in interaction_exports.table_of(database, Query()).column_names
    some = interaction_exports.table_of(database, Query(), ["question", "model", "absent"])
    assert sorted(some.column_names) == ["model", "question"]
    assert some.column("question").to_pylist() == ["Why?"]


def test_what_only_later_rows_have_has_a_column_of_the_type_that_all_of_it_fits(
    database: Database, tmp_path: Path
) -> None:
    many = [{"features": {"age": float(number)}, "prediction": 1.5} for number in range(1_000)]
    late = {"features": {"age": 7, "else": 1}, "prediction": "two"}
    add(database, *many, *[None] * 1_000, late)
    table = interaction_exports.table_of(database, Query())
    assert table.column("feature.else").to_pylist() == [None] * 2_000 + [1.0]
    assert table.column("feature.age").to_pylist()[999:] == [999.0, *[None] * 1_000, 7.0]
    assert table.column("prediction").to_pylist()[999:] == ["1.5", *[None] * 1_000, "two"]
    store = open_store(tmp_path / "artifacts", database)
    interaction_exports.export(database, store, Query(), "all")
    assert open_reference(store, "all", tmp_path / "out").read("feature.else").to_pylist()[-1] == 1


def test_the_score_of_the_passage_found_first_is_a_column_of_numbers(database: Database) -> None:
    add(database, {"retrieval_score": 0.5}, {"retrieval_score": None}, {"retrieval_score": "1"})
    table = interaction_exports.table_of(database, Query(), ["retrieval_score"])
    assert table.column("retrieval_score").to_pylist() == [0.5, None, None]


def test_what_an_answer_cites_first_is_a_column(database: Database) -> None:
    cited = {"citations": [{"text": "27 days of leave"}, {"text": "Leave is paid"}]}
    add(database, cited, {"citations": []}, {"citations": ["27"]}, {})
    table = interaction_exports.table_of(database, Query(), ["cited"])
    assert table.column("cited").to_pylist() == ["27 days of leave", None, None, None]


def test_every_column_of_the_log_has_a_column_of_its_type(database: Database) -> None:
    row: dict[str, Any] = {
        name: {str: name[:16], float: 0.25, int: 3}.get(column.type.python_type, NOON)
        for name, column in interaction.columns.items()
        if name not in {"number", "content"}
    }
    with database.write() as connection:
        connection.execute(insert(interaction).values(row))
    (found,) = interaction_exports.table_of(database, Query()).to_pylist()
    assert {name: found[name] for name in row} == row
