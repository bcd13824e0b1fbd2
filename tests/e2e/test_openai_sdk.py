"""The official `openai` SDK against a real server process: what the HTTP face must satisfy."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from infra.database.engine import Database
from service.callers import Limits
from service.keys import Keys, Opens

LEAVE = b"Employees have 27 days of annual leave each year. Leave is requested in the staff portal."
TRAVEL = b"Trains are booked in second class. Flights need the written approval of the manager."
QUESTION = "How many days of annual leave do employees have each year?"


def connect(url: str, key: str = "not needed", *, retries: int = 2) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=retries, timeout=120)


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with connect(server.url, retries=0) as client:
        yield client


@pytest.fixture
def store(client: openai.OpenAI) -> Iterator[Any]:
    """A vector store with two files, read."""
    store = client.vector_stores.create(name=f"handbook-{uuid.uuid4().hex[:8]}")
    for name, content, topic in (("leave.txt", LEAVE, "leave"), ("travel.txt", TRAVEL, "travel")):
        uploaded = client.files.create(file=(name, content), purpose="assistants")
        attached = client.vector_stores.files.create_and_poll(
            uploaded.id,
            vector_store_id=store.id,
            attributes={"topic": topic},
            poll_interval_ms=50,
        )
        assert attached.status == "completed", attached.last_error
    yield store
    for file in client.vector_stores.files.list(store.id):
        client.files.delete(file.id)
    client.vector_stores.delete(store.id)


def run_through(client: openai.OpenAI, *, sources: dict[str, bytes], question: str) -> Any:
    """Create, upload, poll, search, chat, delete; returns the answer."""
    store = client.vector_stores.create(name=f"journey-{uuid.uuid4().hex[:8]}")
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id,
        files=[(name, io.BytesIO(content)) for name, content in sources.items()],
        poll_interval_ms=50,
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", len(sources))
    found = client.vector_stores.search(store.id, query=question, max_num_results=3).data
    assert found[0].filename == next(iter(sources))
    completion = client.chat.completions.create(
        model=f"rag/{store.name}", messages=[{"role": "user", "content": question}]
    )
    ids = [file.id for file in client.vector_stores.files.list(store.id)]
    for file_id in ids:
        assert client.files.delete(file_id).deleted
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)
    return completion


def test_the_whole_way_from_upload_to_deletion(client: openai.OpenAI) -> None:
    before = [file.id for file in client.files.list()]
    completion = run_through(
        client, sources={"leave.txt": LEAVE, "travel.txt": TRAVEL}, question=QUESTION
    )
    message = completion.choices[0].message
    assert message.role == "assistant"
    assert completion.usage.total_tokens > completion.usage.completion_tokens > 0
    assert [file.id for file in client.files.list()] == before


def test_search_takes_filters_and_thresholds(client: openai.OpenAI, store: Any) -> None:
    found = client.vector_stores.search(
        store.id,
        query="what needs approval",
        filters={
            "type": "and",
            "filters": [
                {"type": "eq", "key": "topic", "value": "travel"},
                {"type": "nin", "key": "topic", "value": ["leave"]},
            ],
        },
        ranking_options={"ranker": "auto", "score_threshold": 0.0},
        rewrite_query=False,
    )
    assert found.object == "vector_store.search_results.page"
    assert [(item.filename, item.attributes) for item in found.data] == [
        ("travel.txt", {"topic": "travel", "encoding": found.data[0].attributes["encoding"]})
    ]
    assert 0 < found.data[0].score <= 1
    assert found.data[0].content[0].text in TRAVEL.decode()


def test_chat_streams_what_it_answers_whole(client: openai.OpenAI, store: Any) -> None:
    asked: Any = {
        "model": f"rag/{store.name}",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "seed": 1,
    }
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_citations_stand_in_the_file_they_name(client: openai.OpenAI, store: Any) -> None:
    completion = client.chat.completions.create(
        model=f"rag/{store.name}", messages=[{"role": "user", "content": QUESTION}]
    )
    message: Any = completion.choices[0].message.model_dump()
    assert message["answerable"], message["reason"]
    assert len(message["citations"]) >= 1
    for annotation, citation in zip(message["annotations"], message["citations"], strict=True):
        assert annotation["file_id"] == citation["document_id"]
        pages = client.vector_stores.files.content(annotation["file_id"], vector_store_id=store.id)
        text = pages.data[0].text or ""
        assert text[citation["start_char"] : citation["end_char"]] == citation["text"]
        assert client.files.content(annotation["file_id"]).read() == text.encode()


def test_stores_and_files_page_through_by_themselves(client: openai.OpenAI) -> None:
    names = [f"page-{uuid.uuid4().hex[:8]}" for _ in range(5)]
    made = [client.vector_stores.create(name=name, metadata={"n": name}) for name in names]
    listed = [store.name for store in client.vector_stores.list(limit=2, order="asc")]
    assert [name for name in listed if name in names] == names
    first = client.vector_stores.list(limit=2, order="desc")
    assert (len(first.data), first.has_more) == (2, True)
    files = [client.files.create(file=(f"{n}.txt", b"text"), purpose="user_data") for n in range(5)]
    batch = client.vector_stores.file_batches.create_and_poll(
        made[0].id, file_ids=[file.id for file in files], poll_interval_ms=50
    )
    listed_files = client.vector_stores.file_batches.list_files(
        batch.id, vector_store_id=made[0].id, limit=2, order="asc"
    )
    assert [file.id for file in listed_files] == [file.id for file in files]
    renamed = client.vector_stores.update(made[1].id, name=f"{names[1]}-b", metadata={"a": "b"})
    assert (renamed.name, renamed.metadata) == (f"{names[1]}-b", {"a": "b"})
    for store in made:
        assert client.vector_stores.delete(store.id).deleted
    for file in files:
        assert client.files.delete(file.id).deleted


def test_attributes_are_changed_in_place(client: openai.OpenAI, store: Any) -> None:
    file = next(iter(client.vector_stores.files.list(store.id, filter="completed")))
    changed = client.vector_stores.files.update(
        file.id, vector_store_id=store.id, attributes={"reviewed": True, "year": 2024}
    )
    assert changed.attributes == {"reviewed": True, "year": 2024}
    chosen: Any = {"type": "eq", "key": "reviewed", "value": True}
    found = client.vector_stores.search(store.id, query="days", filters=chosen).data
    assert {item.file_id for item in found} == {file.id}


def test_models_are_the_collections(client: openai.OpenAI, store: Any) -> None:
    name = f"rag/{store.name}"
    assert name in {model.id for model in client.models.list()}
    assert client.models.retrieve(name).id == name


def test_texts_are_embedded(client: openai.OpenAI) -> None:
    texts = ["Employees have leave.", "Trains are booked."]
    # The SDK asks for base64, and tells numbers.
    made = client.embeddings.create(model="local/embedder", input=texts)
    plain = client.embeddings.create(model="local/embedder", input=texts, encoding_format="float")
    width = len(made.data[0].embedding)
    assert [each.index for each in made.data] == [0, 1]
    for one, two in zip(made.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(two.embedding, abs=1e-6)
    assert made.usage.prompt_tokens > 2
    (same,) = client.embeddings.create(
        model="local/embedder", input=texts[0], dimensions=width
    ).data
    assert same.embedding == made.data[0].embedding
    for change in ({"dimensions": width + 1}, {"input": []}, {"input": [[1, 2]]}):
        asked: dict[str, Any] = {"model": "local/embedder", "input": texts, **change}
        with pytest.raises(openai.BadRequestError) as invalid:
            client.embeddings.create(**asked)
        assert (invalid.value.param or "").split(".")[0] == next(iter(change))
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="local/missing", input=texts)


def test_errors_become_the_sdk_s_exceptions(client: openai.OpenAI, store: Any) -> None:
    message: Any = {"role": "user", "content": "?"}
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="rag/missing", messages=[message])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as invalid:
        client.chat.completions.create(model=f"rag/{store.name}", messages=[message], n=2)
    assert invalid.value.param == "n"
    with pytest.raises(openai.ConflictError):
        client.vector_stores.create(name=store.name)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("file-nothing")
    unknown: Any = {"type": "like"}
    with pytest.raises(openai.BadRequestError):
        client.vector_stores.search(store.id, query="x", filters=unknown)


def test_a_key_is_asked_for_and_taken(start_server: Callable[..., Any], tmp_path: Path) -> None:
    server = start_server(RAGSTONE_SERVER__AUTHENTICATION="on")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'ragstone.db'}")
    keys = Keys(database)
    _, key = keys.create("test")
    _, narrow = keys.create("narrow", opens=Opens(scopes=("ask",)))
    _, slow = keys.create("slow", opens=Opens(limits=Limits(requests_per_minute=1)))
    database.close()
    with connect(server.url, "wrong", retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError) as refused:
            wrong.models.list()
        assert refused.value.code == "invalid_api_key"
    with connect(server.url, key) as right:
        assert right.models.list().data == []
    with connect(server.url, narrow) as may_ask, pytest.raises(openai.PermissionDeniedError):
        may_ask.vector_stores.create(name="not-mine")
    with connect(server.url, slow, retries=0) as once:
        once.embeddings.create(model="local/embedder", input="rain")
        with pytest.raises(openai.RateLimitError) as limited:
            once.embeddings.create(model="local/embedder", input="more rain")
        assert limited.value.code == "rate_limit_exceeded"
        assert int(limited.value.response.headers["retry-after"]) > 0


def test_what_was_uploaded_survives_a_restart(start_server: Callable[..., Any]) -> None:
    first = start_server()
    with connect(first.url) as client:
        store = client.vector_stores.create(name="kept")
        client.vector_stores.files.upload_and_poll(
            vector_store_id=store.id, file=("leave.txt", LEAVE), poll_interval_ms=50
        )
    assert first.stop() == 0
    second = start_server()
    with connect(second.url) as client:
        found = client.vector_stores.search(store.id, query=QUESTION).data
        assert [item.filename for item in found] == ["leave.txt"]


@pytest.mark.model
def test_the_real_model_answers_from_the_uploaded_files(model_server: Any) -> None:
    with connect(model_server.url) as client:
        completion = run_through(
            client, sources={"leave.txt": LEAVE, "travel.txt": TRAVEL}, question=QUESTION
        )
    message: Any = completion.choices[0].message.model_dump()
    assert "27 days" in message["content"]
    assert message["annotations"][0]["filename"] == "leave.txt"
