"""Conversations: bounded, removed with age, each seen by its tenant alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from infra.database.conversation_tables import conversation_item
from infra.database.engine import Database
from infra.errors import NotFound, TooLarge
from infra.settings import Conversations as Limits
from service.callers import Caller
from service.conversations import Conversations, History, Said
from set_clock import TimeOfDay
from standing_documents import remove, stand

ACME, OTHER, OPERATOR = Caller(tenant="acme"), Caller(tenant="other"), Caller()


@pytest.fixture
def clock() -> TimeOfDay:
    return TimeOfDay()


def store(database: Database, clock: TimeOfDay, **limits: Any) -> Conversations:
    return Conversations(database, Limits(**limits), clock=clock)


def texts(kept: Conversations, id: str, caller: Caller = ACME) -> list[str]:
    page = kept.items(caller, id, limit=100, descending=False)
    return [item.text for item in page.items]


def test_what_is_said_comes_back_in_order(database: Database, clock: TimeOfDay) -> None:
    kept = store(database, clock)
    made = kept.create(ACME, attributes={"topic": "leave"}, items=[Said.of("user", "Hello")])
    kept.append(ACME, made.id, [Said.of("assistant", "Good day"), Said.of("user", "Leave?")])
    assert texts(kept, made.id) == ["Hello", "Good day", "Leave?"]
    assert [turn.role for turn in kept.history(ACME, made.id).turns] == [
        "user",
        "assistant",
        "user",
    ]
    assert kept.get(ACME, made.id).attributes == {"topic": "leave"}


def test_another_tenant_sees_changes_and_removes_nothing(
    database: Database, clock: TimeOfDay
) -> None:
    kept = store(database, clock)
    made = kept.create(ACME, attributes={}, items=[Said.of("user", "secret")])
    (item,) = kept.items(ACME, made.id, limit=1).items
    for attempt in (
        lambda: kept.get(OTHER, made.id),
        lambda: kept.items(OTHER, made.id, limit=1),
        lambda: kept.history(OTHER, made.id),
        lambda: kept.item(OTHER, made.id, item.id),
        lambda: kept.append(OTHER, made.id, [Said.of("user", "x")]),
        lambda: kept.update(OTHER, made.id, attributes={}),
        lambda: kept.delete_item(OTHER, made.id, item.id),
        lambda: kept.delete(OTHER, made.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert texts(kept, made.id, OPERATOR) == ["secret"]


def test_an_item_is_found_in_its_own_conversation_only(
    database: Database, clock: TimeOfDay
) -> None:
    kept = store(database, clock)
    first, second = (kept.create(ACME, attributes={}) for _ in range(2))
    (item,) = kept.append(ACME, first.id, [Said.of("user", "x")])
    with pytest.raises(NotFound):
        kept.item(ACME, second.id, item.id)
    with pytest.raises(NotFound):
        kept.items(ACME, second.id, limit=1, after=item.id)


def test_the_oldest_messages_go_first(database: Database, clock: TimeOfDay) -> None:
    kept = store(database, clock, max_items=3)
    made = kept.create(ACME, attributes={})
    for number in range(5):
        kept.append(ACME, made.id, [Said.of("user", str(number))])
    assert texts(kept, made.id) == ["2", "3", "4"]


def test_bytes_are_bounded_and_one_message_too_large_is_refused(
    database: Database, clock: TimeOfDay
) -> None:
    kept = store(database, clock, max_bytes=1024)
    made = kept.create(ACME, attributes={})
    for number in range(4):
        kept.append(ACME, made.id, [Said.of("user", str(number) * 400)])
    assert [text[0] for text in texts(kept, made.id)] == ["2", "3"]
    with pytest.raises(TooLarge, match="1,024"):
        kept.append(ACME, made.id, [Said.of("user", "x" * 1024)])
    assert len(texts(kept, made.id)) == 2


def test_what_has_aged_is_gone(database: Database, clock: TimeOfDay) -> None:
    kept = store(database, clock, keep_days=2)
    old = kept.create(ACME, attributes={}, items=[Said.of("user", "x")])
    used = kept.create(ACME, attributes={})
    clock.now += timedelta(days=1.5)
    kept.append(ACME, used.id, [Said.of("user", "still here")])
    clock.now += timedelta(days=1)
    with pytest.raises(NotFound):
        kept.get(ACME, old.id)
    kept.create(ACME, attributes={})
    assert kept.count() == 2
    assert texts(kept, used.id) == ["still here"]


def test_delete_leaves_no_row(database: Database, clock: TimeOfDay) -> None:
    kept = store(database, clock)
    made = kept.create(ACME, attributes={}, items=[Said.of("user", "x")] * 3)
    kept.delete(ACME, made.id)
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(conversation_item)) == 0
    assert kept.count() == 0


def test_conversations_have_openais_shape(client: Any) -> None:
    made = client.post(
        "/v1/conversations",
        json={
            "metadata": {"topic": "demo"},
            "items": [{"type": "message", "role": "user", "content": "Hello!"}],
        },
    ).json()
    assert made["object"] == "conversation"
    assert made["id"].startswith("conv_")
    url = f"/v1/conversations/{made['id']}"
    assert client.get(url).json() == made
    changed = client.post(url, json={"metadata": {"topic": "other"}}).json()
    assert changed == {**made, "metadata": {"topic": "other"}}
    parts = [{"type": "input_text", "text": "How are you?"}]
    added = client.post(f"{url}/items", json={"items": [{"role": "user", "content": parts}]}).json()
    assert added["object"] == "list"
    assert added["data"][0]["content"] == parts
    listed = client.get(f"{url}/items", params={"limit": 1}).json()
    assert (listed["has_more"], listed["data"]) == (True, added["data"])
    rest = client.get(f"{url}/items", params={"after": listed["last_id"]}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["Hello!"]
    item = f"{url}/items/{added['first_id']}"
    assert client.get(item).json() == added["data"][0]
    assert client.delete(item).json()["id"] == made["id"]
    assert client.get(item).status_code == 404
    gone = client.delete(url).json()
    assert gone == {"id": made["id"], "object": "conversation.deleted", "deleted": True}
    assert client.get(url).json()["error"]["code"] == "conversation_not_found"


@pytest.mark.parametrize(
    "body",
    [
        {"items": [{"role": "robot", "content": "x"}]},
        {"items": [{"role": "user", "content": []}]},
        {"items": [{"role": "user", "content": "x"}] * 21},
        {"items": [{"type": "function_call", "role": "user", "content": "x"}]},
        {"metadata": {"a": 1}},
        {"surprise": 1},
    ],
)
def test_malformed_conversations_are_refused(client: Any, body: dict[str, Any]) -> None:
    response = client.post("/v1/conversations", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_erasing_a_document_removes_the_messages_that_quote_it(
    database: Database, clock: TimeOfDay
) -> None:
    stand(database, "file-a")
    kept = store(database, clock)
    made = kept.create(ACME, attributes={}, items=[])
    said = [Said.of("user", "Why?"), Said.of("assistant", "Because.", documents=("file-a",))]
    kept.append(ACME, made.id, said)
    assert kept.erase(["file-b"]) == 0
    assert kept.erase(["file-a"]) == 1
    assert texts(kept, made.id) == ["Why?"]


def test_a_message_that_quotes_a_document_that_is_gone_is_not_kept(
    database: Database, clock: TimeOfDay
) -> None:
    stand(database, "file-a", "file-b")
    kept = store(database, clock)
    said = [
        Said.of("user", "Why?"),
        Said.of("assistant", "Because.", documents=("file-b", "file-a")),
        Said.of("assistant", "So.", documents=("file-b",)),
    ]
    remove(database, "file-a")
    made = kept.create(ACME, attributes={}, items=said)
    assert texts(kept, made.id) == ["Why?", "So."]
    assert [item.role for item in kept.append(ACME, made.id, said)] == ["user", "assistant"]


def test_the_history_says_what_it_may_quote(database: Database, clock: TimeOfDay) -> None:
    stand(database, "file-a", "file-b", "file-c")
    kept = store(database, clock, history_items=2)
    said = [Said.of("assistant", f"Of {each}.", documents=(f"file-{each}",)) for each in "abc"]
    made = kept.create(ACME, attributes={}, items=said)
    history = kept.history(ACME, made.id)
    assert [turn.content for turn in history.turns] == ["Of b.", "Of c."]
    assert set(history.documents) == {"file-b", "file-c"}
    none = store(database, clock, history_items=0)
    assert none.history(ACME, made.id) == History()


def test_those_unused_for_longest_make_room_for_their_own_tenant(
    database: Database, clock: TimeOfDay
) -> None:
    kept = store(database, clock, max_conversations=2)
    foreign = kept.create(OTHER, attributes={}, items=[Said.of("user", "mine")])
    own = []
    for _ in range(2):
        clock.now += timedelta(minutes=1)
        own.append(kept.create(ACME, attributes={}).id)
    clock.now += timedelta(minutes=1)
    kept.append(ACME, own[0], [Said.of("user", "still here")])
    newest = kept.create(ACME, attributes={}).id
    with pytest.raises(NotFound):
        kept.get(ACME, own[1])
    assert texts(kept, own[0]) == ["still here"]
    assert kept.get(ACME, newest)
    assert texts(kept, foreign.id, OTHER) == ["mine"]
    assert kept.count() == 3
