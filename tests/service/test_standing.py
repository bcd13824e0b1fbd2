"""What a scrape tells of the database: budgets, indexes, sources, evaluations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update
from starlette.testclient import TestClient

from infra.artifacts.publishing import Made
from infra.database.money import budget_account
from infra.database.schema import change
from infra.jobs.schedules import Schedule
from infra.jobs.tables import job
from retrieval.sources import Spec
from service import standing


def told(client: TestClient) -> dict[str, float]:
    """Return the values of a scrape, of what is read at this moment."""
    parts = client.app.state.components  # type: ignore[attr-defined]
    standing.watch(parts)  # reads anew
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_the_share_of_the_tightest_budget_is_told(client: TestClient) -> None:
    budgets = client.app.state.components.budgets  # type: ignore[attr-defined]
    wide = budgets.put("tenant", "acme", period="total", amount=1000)
    tight = budgets.put("tenant", "umbrella", period="total", amount=100)
    database = client.app.state.components.database  # type: ignore[attr-defined]
    assert told(client)["ragstone_budget_spent_ratio['tenant', 'total']"] == 0
    span = budgets.get(tight.id).span
    with database.write() as connection:
        for one, spent in ((wide, 500), (tight, 95)):
            connection.execute(
                insert(budget_account).values(
                    budget_id=one.id, span=span, spent=spent, lent=0, recalls=0
                )
            )
    assert told(client)["ragstone_budget_spent_ratio['tenant', 'total']"] == 0.95


def test_changes_that_a_view_has_not_seen_are_told(client: TestClient, handbook: str) -> None:
    parts = client.app.state.components  # type: ignore[attr-defined]
    collection = parts.collections.get(handbook)
    view = parts.views.get(collection)
    view.refresh()
    assert told(client)["ragstone_index_lag_changes['handbook']"] == 0
    with view._applying:  # nobody brings it up to date meanwhile
        with parts.database.write() as connection:
            connection.execute(
                insert(change).values(build_id=collection.build_id, operation="delete", chunk_id=7)
            )
        (reading,) = standing.indexes(parts)
    assert (reading.labels, reading.value) == (("handbook",), 1)


def test_a_source_is_due_at_the_tick_after_it_was_last_brought_in_step(client: TestClient) -> None:
    parts = client.app.state.components  # type: ignore[attr-defined]
    parts.worker.stop()
    collection = parts.collections.create("wiki", parts.recipe())
    parts.sources.add("wiki", Spec("folder", "/nowhere"), collection, identity="x")
    arguments = {"collection": collection.public_id, "source": "wiki", "allow_deletes": False}
    parts.jobs.schedules.put(Schedule("sync/wiki", "sync", "@hourly", arguments=arguments))
    name = "ragstone_source_due_timestamp_seconds['wiki']"
    due = told(client)[name]
    assert due % 3600 == 0
    started = parts.jobs.start("sync", arguments)
    later = parts.jobs.now() + timedelta(hours=5)
    with parts.database.write() as connection:
        connection.execute(
            update(job).where(job.c.id == started.id).values(state="succeeded", finished_at=later)
        )
    assert told(client)[name] == due + 5 * 3600
    parts.jobs.schedules.pause("sync/wiki")
    assert name not in told(client)


def test_the_newest_evaluation_of_a_suite_is_told(client: TestClient) -> None:
    store: Any = client.app.state.components.artifacts  # type: ignore[attr-defined]

    def publish(name: str, verdict: str) -> None:
        made = Made(metadata={"evaluation": {"verdict": verdict, "trials": 3}})
        with store.writer(f"evaluation/{name}", made) as draft:
            (draft.folder / "verdict").write_text(f"{name} {verdict}")

    publish("faq", "fail")
    publish("free", "ungated")
    found = told(client)
    assert found["ragstone_eval_passed['faq']"] == 0
    assert found["ragstone_eval_timestamp_seconds['faq']"] > 1.6e9
    assert "ragstone_eval_passed['free']" not in found, "without gates nothing can pass"
    publish("faq", "pass")
    assert told(client)["ragstone_eval_passed['faq']"] == 1


def test_openmetrics_is_written_for_whoever_asks(client: TestClient) -> None:
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    asked = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"}
    opened = client.get("/metrics", headers=asked)
    assert opened.headers["content-type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")
