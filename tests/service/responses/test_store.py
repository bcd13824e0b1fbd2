"""Responses are kept within bounds, seen by their own tenant alone, and deleted for good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.database.engine import Database
from infra.errors import NotFound, TooLarge
from service.callers import Caller
from service.responses.store import ResponseStore, Stored

ADA = Caller(key_id="k1", name="ada", tenant="acme")
BEN = Caller(key_id="k2", name="ben", tenant="other")


def made(number: int, text: str = "Hello") -> Stored:
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    return Stored({"id": f"resp_{number}"}, [{"id": "item_0", "content": text}], messages)


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


def test_the_oldest_make_room(store: ResponseStore) -> None:
    for number in range(5):
        store.put(made(number), ADA)
    for number in (0, 1):
        with pytest.raises(NotFound):
            store.get(f"resp_{number}", ADA)
    assert store.get("resp_4", ADA)


def test_a_conversation_that_is_too_long_is_refused(store: ResponseStore) -> None:
    with pytest.raises(TooLarge, match="begin a new one"):
        store.put(made(1, "x" * 20_000), ADA)


def test_deleted_is_gone(store: ResponseStore) -> None:
    store.put(made(1), ADA)
    store.delete("resp_1", ADA)
    with pytest.raises(NotFound):
        store.get("resp_1", ADA)


def test_erasing_a_document_removes_what_quotes_it(store: ResponseStore) -> None:
    store.put(replace(made(1), documents=("file-a", "file-b", "file-a")), ADA)
    store.put(replace(made(2), documents=("file-b",)), ADA)
    assert store.erase(["file-a"]) == 1
    with pytest.raises(NotFound):
        store.get("resp_1", ADA)
    assert store.get("resp_2", ADA)
