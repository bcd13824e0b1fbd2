"""Keys in memory: no database on the way in, changes seen within a second, floods bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from infra.database.engine import Database
from infra.database.schema import api_key
from infra.errors import Conflict, InvalidRequest, StorageFailed, Unauthenticated
from infra.security import fingerprint
from service.callers import Limits
from service.keyring import LOOK_UP_GAP_SECONDS, MAX_LOOKED_UP, Keyring
from service.keys import Keys, Opens
from waiting import until


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database)


@pytest.fixture
def keyring(database: Database) -> Iterator[Keyring]:
    keyring = Keyring(database)
    keyring.start()
    yield keyring
    keyring.stop()


def test_what_another_process_does_to_keys_is_seen(keys: Keys, keyring: Keyring) -> None:
    key, text = keys.create("ci", opens=Opens(models=("small",)))
    until(lambda: keyring.find(text) is not None)
    keys.change("ci", {"tokens_per_minute": 100, "models": None})
    until(lambda: keyring.find(text).limits == Limits(tokens_per_minute=100))  # type: ignore[union-attr]
    found = keyring.find(text)
    assert found is not None
    assert found.models is None
    keys.revoke(key.id)
    until(lambda: keyring.find(text) is None)
    assert len(keyring) == 0


def test_a_key_that_was_just_made_opens_at_once(keys: Keys, database: Database) -> None:
    keyring = Keyring(database, poll_seconds=3600)
    keyring.start()
    _, text = keys.create("new")
    assert keyring.find(text) is None
    assert asyncio.run(keyring.check(text)).name == "new"
    keyring.stop()


def test_finding_a_known_key_asks_no_database(keys: Keys, database: Database) -> None:
    _, text = keys.create("ci")
    keyring = Keyring(database, poll_seconds=3600)
    keyring.start()
    looks = keyring.looks
    for _ in range(1000):
        assert keyring.find(text) is not None
    assert keyring.looks == looks
    keyring.stop()


def test_a_flood_of_wrong_keys_costs_few_looks_at_the_database(keyring: Keyring) -> None:
    async def flood() -> list[BaseException | object]:
        tries = (keyring.check(f"rgs_{number}") for number in range(20 * MAX_LOOKED_UP))
        return await asyncio.gather(*tries, return_exceptions=True)

    start, looks = time.monotonic(), keyring.looks
    results = asyncio.run(flood())
    allowed = 2 + (time.monotonic() - start) / LOOK_UP_GAP_SECONDS
    assert {type(each) for each in results} == {Unauthenticated}
    assert keyring.looks - looks <= allowed


@pytest.mark.parametrize("text", ["", "rgs_" + "x" * 300, "\ud800", "\0", "é"])
def test_malformed_keys_do_not_open(keyring: Keyring, text: str) -> None:
    with pytest.raises(Unauthenticated):
        asyncio.run(keyring.check(text))


def test_a_rotated_key_opens_by_both_texts_until_its_grace_ends(
    keys: Keys, database: Database
) -> None:
    now = datetime.now(UTC)
    keyring = Keyring(database, clock=lambda: now)
    _, old = keys.create("ci", opens=Opens(tenant="acme"))
    _, new = keys.rotate("ci", grace=timedelta(hours=1))
    keyring.refresh()
    assert keyring.find(old) == keyring.find(new) is not None
    now += timedelta(hours=2)
    assert keyring.find(old) is None
    assert keyring.find(new) is not None
    _, newest = keys.rotate("ci")
    keyring.refresh()
    assert [keyring.find(each) is not None for each in (old, new, newest)] == [False, False, True]


def test_use_is_noted_in_batches_and_on_a_clean_stop(keys: Keys, database: Database) -> None:
    _, text = keys.create("ci")
    keyring = Keyring(database)
    keyring.start()
    for _ in range(100):
        keyring.find(text)
    assert keys.get("ci").last_used_at is None
    keyring.stop()
    assert keys.get("ci").last_used_at is not None


def test_while_the_database_is_away_known_keys_open_and_others_are_not_judged(
    keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = keys.create("ci")
    keyring = Keyring(database)
    keyring.start()

    def fail(*_: object) -> None:
        raise StorageFailed("the database is away")

    monkeypatch.setattr(database, "read", fail)
    assert keyring.find(text) is not None
    with pytest.raises(StorageFailed):
        asyncio.run(keyring.check("rgs_unknown"))
    monkeypatch.undo()
    keyring.stop()


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_keys_are_read_and_changes_cost_only_themselves(
    database: Database, keys: Keys, count: int
) -> None:
    rows = [
        {
            "id": f"key_{number}",
            "name": f"name {number}",
            "fingerprint": fingerprint(f"rgs_{number}"),
            "created_at": datetime.now(UTC),
            "groups": None,
            "scopes": ["ask"],
        }
        for number in range(count)
    ]
    with database.write() as connection:
        connection.execute(insert(api_key), rows)
    keyring = Keyring(database)
    keyring.refresh()
    assert len(keyring) == count
    found = keyring.find(f"rgs_{count - 1}")
    assert found is not None
    assert found.scopes == frozenset({"ask"})
    keys.revoke(f"key_{count - 1}")
    keyring.refresh()
    assert len(keyring) == count - 1


def test_a_revoked_key_cannot_be_changed_back(keys: Keys) -> None:
    keys.create("ci")
    keys.revoke("ci")
    keys.revoke("ci")
    with pytest.raises(Conflict, match="revoked"):
        keys.rotate("ci")
    with pytest.raises(Conflict, match="revoked"):
        keys.change("ci", {"models": None})


@pytest.mark.parametrize(
    "values",
    [
        {"tenant": ""},
        {"tenant": "a\nb"},
        {"groups": ("",)},
        {"models": tuple("abc" * 50)},
        {"scopes": ()},
        {"scopes": ("root",)},
        {"collections": ("x" * 256,)},
    ],
)
def test_what_cannot_be_a_key_is_refused(keys: Keys, values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        Opens(**values)  # type: ignore[arg-type]


def test_pages_of_keys_hold_each_once(keys: Keys) -> None:
    made = [keys.create(f"key {number}")[0].id for number in range(7)]
    first = keys.list(limit=3)
    second = keys.list(limit=3, after=first[-1].id)
    third = keys.list(limit=3, after=second[-1].id)
    assert [key.id for key in first + second + third] == made
    assert keys.names([made[0], "none"]) == {made[0]: "key 0"}
