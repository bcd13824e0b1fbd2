"""Delete means gone, also where an answer about the document is under way while it is erased."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from chat_server import ChatServer, serving
from infra.contracts import Interaction
from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.database.new_rows import insert_new
from infra.database.schema import metadata
from infra.errors import Conflict
from infra.settings import Conversations as Limits
from infra.settings import Settings, load_settings
from monitoring import interactions
from monitoring.interactions import Interactions
from retrieval.quotes import Quotes
from service.app import create_app
from service.callers import Caller
from service.conversations import Conversations, Said
from service.responses.store import ResponseStore, Stored
from service.wiring import Components
from service.work import erasing
from standing_documents import remove, stand

CANARY = "quetzalqvw7731"
SECRET = f"The {CANARY} is hidden in the moat."
ANSWER = f"{SECRET} [1]"
QUESTION = "What is hidden in the moat?"


@pytest.fixture
def model() -> Iterator[ChatServer]:
    with serving(ANSWER) as state:
        yield state


@pytest.fixture
def keeping(settings: Settings, model: ChatServer) -> Settings:
    """Settings that keep all they can of what is asked and answered."""
    route = {"targets": [{"upstream": "here"}], "retries": 0}
    gateway = {
        "upstreams": {"here": {"urls": [model.url]}},
        "routes": {"writer": route, "other": route},
    }
    return load_settings(
        data_folder=settings.data_folder,
        database_url=settings.database_url,
        retrieval=settings.retrieval.model_dump(),
        gateway=gateway,
        generation={"engine": "extractive", "model": "writer"},
        telemetry={"content": True},
    )


@contextmanager
def serving_documents(settings: Settings, add_text: Any) -> Iterator[tuple[TestClient, str]]:
    """Yield a client of a running service, and the id of a document with the canary."""
    app = create_app(Components(settings))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.post("/v1/vector_stores", json={"name": "walls"})
        yield client, add_text(client, "walls", "moat.txt", SECRET)


def erase_elsewhere(settings: Settings, file_id: str) -> None:
    """Erase a document from what is to the service another process."""
    parts = Components(settings)
    try:
        erasing.erase(parts, parts.collections.get("walls"), [file_id], by="test")
    finally:
        parts.close()


def compact_elsewhere(settings: Settings) -> None:
    parts = Components(settings)
    try:
        parts.compactor.compact(parts.collections.get("walls"))
    finally:
        parts.close()


def places_of_the_canary(settings: Settings) -> list[str]:
    """Return every table and file that holds it in any form."""
    found = []
    database = Database(settings.database_location)
    with database.read() as connection:
        for table in metadata.sorted_tables:
            rows = connection.execute(select(table)).all()
            if any(CANARY in repr(tuple(row)).lower() for row in rows):
                found.append(table.name)
    database.close()
    files = [path for path in settings.data_folder.rglob("*") if path.is_file()]
    if database.is_sqlite:
        base = settings.database_location.removeprefix("sqlite:///")
        files += [path for path in settings.data_folder.parent.glob("*.db*") if base in str(path)]
    assert files
    return found + [str(path) for path in files if CANARY.encode() in path.read_bytes().lower()]


def erasing_meanwhile(settings: Settings, file_id: str) -> Callable[[Any], str]:
    """Return what has the model erase the document it was just shown, and quote it then."""

    def reply(body: Any) -> str:
        assert CANARY in str(body)
        erase_elsewhere(settings, file_id)
        return ANSWER

    return reply


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_under_way_leaves_nothing_of_what_is_erased(
    keeping: Settings, model: ChatServer, add_text: Any, is_stream: bool
) -> None:
    with serving_documents(keeping, add_text) as (client, file_id):
        conversation = client.post("/v1/conversations", json={}).json()["id"]
        model.reply = erasing_meanwhile(keeping, file_id)
        body = {"question": QUESTION, "collection": "walls", "conversation": conversation}
        answered = client.post("/v1/answers", json={**body, "stream": is_stream})
        assert answered.status_code == 200
        items = client.get(f"/v1/conversations/{conversation}/items").json()["data"]
        assert [item["role"] for item in items] == ["user"]
    compact_elsewhere(keeping)
    assert places_of_the_canary(keeping) == []


def test_a_response_under_way_is_told_and_not_stored(
    keeping: Settings, model: ChatServer, add_text: Any
) -> None:
    with serving_documents(keeping, add_text) as (client, file_id):
        model.reply = erasing_meanwhile(keeping, file_id)
        body = {"model": "rag/walls", "input": QUESTION}
        told = client.post("/v1/responses", json=body).json()
        assert (told["status"], told["store"]) == ("completed", False)
        assert client.get(f"/v1/responses/{told['id']}").status_code == 404
    compact_elsewhere(keeping)
    assert places_of_the_canary(keeping) == []


def test_turns_that_go_on_from_a_quote_go_with_its_document(
    keeping: Settings, model: ChatServer, add_text: Any
) -> None:
    """Of responses by another model and of conversations, where no document is looked at again."""
    with serving_documents(keeping, add_text) as (client, file_id):
        other = add_text(client, "walls", "gate.txt", "The gate is made of oak.")
        conversation = client.post("/v1/conversations", json={}).json()["id"]
        asked = {"question": QUESTION, "collection": "walls", "conversation": conversation}
        first = client.post("/v1/responses", json={"model": "rag/walls", "input": QUESTION}).json()
        client.post("/v1/answers", json=asked)
        model.reply = f"As I said: the {CANARY}."
        later = {"model": "other", "input": "Again?", "previous_response_id": first["id"]}
        second = client.post("/v1/responses", json=later).json()
        only_gate = {"type": "eq", "key": "filename", "value": "gate.txt"}
        again = {**asked, "question": "Say it again, please", "filter": only_gate}
        assert CANARY in client.post("/v1/answers", json=again).json()["text"]
        for response in (first, second):
            assert response["store"] is True
        assert client.get(f"/v1/vector_stores/walls/files/{other}").status_code == 200
        erase_elsewhere(keeping, file_id)
        for response in (first, second):
            assert client.get(f"/v1/responses/{response['id']}").status_code == 404
        items = client.get(f"/v1/conversations/{conversation}/items").json()["data"]
        assert [item["role"] for item in items] == ["user", "user"]
    compact_elsewhere(keeping)
    assert places_of_the_canary(keeping) == []


def quoting(name: str, documents: tuple[str, ...]) -> Interaction:
    return Interaction(
        id=name,
        kind="answer",
        at=datetime.now(UTC),
        model="rag/walls",
        outcome="answered",
        status=200,
        documents=documents,
        content={"answer": f"{CANARY} of {documents}"},
    )


class Stores:
    """The three stores that quote documents, each with many writers."""

    def __init__(self, database: Database) -> None:
        self.interactions = Interactions(database)
        self.responses = ResponseStore(database, most=lambda: 10_000, most_bytes=100_000)
        self.conversations = Conversations(database, Limits())
        self.conversation = self.conversations.create(Caller(), attributes={}).id
        self.quotes = Quotes(
            database,
            {
                "interactions": self.interactions.erase_content,
                "responses": self.responses.erase,
                "conversations": self.conversations.erase,
            },
        )

    def write(self, name: str, documents: tuple[str, ...]) -> None:
        words = f"{CANARY} of {documents}"
        match name[0]:
            case "i":
                self.interactions.add(quoting(name, documents))
                self.interactions.flush()
            case "r":
                try:
                    self.responses.put(
                        Stored({"id": name, "words": words}, (), (), documents), Caller()
                    )
                except Conflict:
                    return
            case "c":
                said = [Said.of("assistant", words, documents=documents)]
                self.conversations.append(Caller(), self.conversation, said)


def test_writers_and_erasers_that_race_leave_no_quote(database: Database) -> None:
    names = [f"file-{number}" for number in range(24)]
    stand(database, *names)
    stores = Stores(database)
    chance = random.Random(7)
    plans = {
        (kind, writer): [tuple(chance.sample(names, 2)) for _ in range(40)]
        for kind in "irc"
        for writer in range(2)
    }
    failures: list[BaseException] = []

    def write(kind: str, writer: int) -> None:
        try:
            for number, documents in enumerate(plans[kind, writer]):
                stores.write(f"{kind}-{writer}-{number}", documents)
        except BaseException as error:  # noqa: BLE001  it is for the test to tell
            failures.append(error)

    threads = [threading.Thread(target=write, args=who) for who in plans]
    for thread in threads:
        thread.start()
    for name in names[:12]:
        remove(database, name)
        stores.quotes.erase([name])
    for thread in threads:
        thread.join()
    assert failures == []
    gone = set(names[:12])
    with database.read() as connection:
        kept = [
            repr(tuple(row))
            for table in metadata.sorted_tables
            if table.name in {"interaction", "response", "conversation_item"}
            for row in connection.execute(select(table))
        ]
        whole = connection.execute(
            select(interaction.c.id).where(interaction.c.content.is_not(None))
        ).all()
    assert [row for row in kept for name in gone if f"'{name}'" in row] == []
    assert whole, "what quotes no erased document stays"
    assert sum(CANARY in row for row in kept) > len(whole)


class Pause:
    """Between the look at the documents and the writing of what quotes them."""

    def __init__(self) -> None:
        self.looked, self.is_erasing = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> None:
        self.looked.set()
        assert self.is_erasing.wait(30)
        time.sleep(0.3)
        insert_new(*arguments)


def test_an_eraser_waits_for_a_writer_that_saw_the_document(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand(database, "file-a")
    log, pause = Interactions(database), Pause()
    monkeypatch.setattr(interactions, "insert_new", pause)
    quotes = Quotes(database, {"interactions": Interactions(database).erase_content})
    log.add(quoting("answer-1", ("file-a",)))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(log.flush)
        assert pause.looked.wait(30)
        pause.is_erasing.set()
        remove(database, "file-a")
        quotes.erase(["file-a"])
        writing.result(30)
    assert log.get("answer-1").content is None
