"""Responses are kept within bounds, seen by their own tenant alone, and deleted for good."""

from __future__ import annotations

from typing import Any

import pytest

from infra.database.engine import Database
from infra.errors import Conflict, NotFound, TooLarge
from service.callers import Caller
from service.responses.store import ResponseStore, Stored
from standing_documents import remove, stand

ADA = Caller(key_id="k1", name="ada", tenant="acme")
BEN = Caller(key_id="k2", name="ben", tenant="other")


def made(number: int, text: str = "Hello", *, documents: tuple[str, ...] = ()) -> Stored:
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    items = [{"id": "item_0", "content": text}]
    return Stored({"id": f"resp_{number}"}, items, messages, documents)


@pytest.fixture
def store(database: Database) -> ResponseStore:
    return ResponseStore(database, most=lambda: 3, most_bytes=10_000)


def test_what_was_put_is_returned(store: ResponseStore) -> None:
    store.put(made(1), ADA)
    assert store.get("resp_1", ADA) == made(1)


@pytest.mark.parametrize("other", [BEN, Caller(key_id="k3", name="operator")])
def test_another_tenant_does_not_learn_that_it_exists(store: ResponseStore, other: Caller) -> None:
    store.put(made(1), ADA)
    with pytest.raises(NotFound):
        store.get("resp_1", other)
    with pytest.raises(NotFound):
        store.delete("resp_1", other)
    assert store.get("resp_1", ADA)


def test_keys_of_one_tenant_share_its_responses(store: ResponseStore) -> None:
    store.put(made(1), ADA)
    assert store.get("resp_1", Caller(key_id="k9", name="eve", tenant="acme"))


def numbers_of(store: ResponseStore, caller: Caller, numbers: range) -> list[int]:
    kept = []
    for number in numbers:
        try:
            store.get(f"resp_{number}", caller)
            kept.append(number)
        except NotFound:
            pass
    return kept


def test_the_oldest_make_room(store: ResponseStore) -> None:
    for number in range(5):
        store.put(made(number), ADA)
    assert numbers_of(store, ADA, range(5)) == [2, 3, 4]


@pytest.mark.parametrize(
    "others",
    [BEN, Caller(key_id="k4", name="no tenant"), Caller()],
    ids=["another tenant", "a key without a tenant", "nobody's key"],
)
def test_nobody_makes_others_responses_go(store: ResponseStore, others: Caller) -> None:
    store.put(made(0), ADA)
    store.put(made(1), Caller(key_id="k5", name="no tenant either"))
    for number in range(10, 20):
        store.put(made(number), others)
    everything = Caller()
    assert numbers_of(store, everything, range(20)) == [0, 1, 17, 18, 19]


def test_none_is_kept_where_none_is_to_be(database: Database) -> None:
    store = ResponseStore(database, most=lambda: 0, most_bytes=10_000)
    store.put(made(1), ADA)
    assert numbers_of(store, ADA, range(5)) == []


def test_a_conversation_that_is_too_long_is_refused(store: ResponseStore) -> None:
    with pytest.raises(TooLarge, match="begin a new one"):
        store.put(made(1, "x" * 20_000), ADA)


def test_deleted_is_gone(store: ResponseStore) -> None:
    store.put(made(1), ADA)
    store.delete("resp_1", ADA)
    with pytest.raises(NotFound):
        store.get("resp_1", ADA)


def test_erasing_a_document_removes_what_quotes_it(
    store: ResponseStore, database: Database
) -> None:
    stand(database, "file-a", "file-b")
    store.put(made(1, documents=("file-a", "file-b", "file-a")), ADA)
    store.put(made(2, documents=("file-b",)), ADA)
    assert store.get("resp_1", ADA).documents == ("file-a", "file-b")
    assert store.erase(["file-a"]) == 1
    assert numbers_of(store, ADA, range(3)) == [2]


def test_what_quotes_a_document_that_is_gone_is_not_stored(
    store: ResponseStore, database: Database
) -> None:
    stand(database, "file-a", "file-b")
    remove(database, "file-a")
    with pytest.raises(Conflict, match="'file-a' was removed"):
        store.put(made(1, documents=("file-a", "file-b")), ADA)
    assert numbers_of(store, ADA, range(3)) == []
