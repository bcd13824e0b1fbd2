"""Every refusal over HTTP: right status, one shape for each face, an id, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra import errors as tree
from service.errors import STATUSES, describe

JSON = {"content-type": "application/json"}


def post(client: TestClient, content: bytes, **headers: str) -> Any:
    return client.post("/v1/answers", content=content, headers={**JSON, **headers})


def assert_refused(response: Any, status: int, *, code: str, param: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"nothing", b'{"question": "\xff"}', b'{"question": NaN}', b"[" * 5000]
    + [b'{"question": "half \\ud800", "collection": "x"}'],
)
def test_what_is_not_json_is_a_400(reader: TestClient, body: bytes) -> None:
    response = post(reader, body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] in {"invalid_json", "missing_required_parameter"}


@pytest.mark.parametrize(
    "body",
    [
        {"question": "a\0b", "collection": "x"},
        {"question": "a", "collection": "x\0"},
        {"question": "a", "collection": "x", "filter": {"type": "eq", "key": "\0", "value": "v"}},
    ],
)
def test_nul_characters_are_refused_before_any_database(reader: TestClient, body: Any) -> None:
    assert_refused(post(reader, json.dumps(body).encode()), 400, code="invalid_value")


def test_written_out_escape_sequences_are_only_text(reader: TestClient) -> None:
    body = {"question": "what is \\u0000 ?", "collection": "handbook"}
    assert post(reader, json.dumps(body).encode()).status_code == 200


@pytest.mark.parametrize("address", ["/v1/files/a%00b", "/v1/files?after=%00", "/v1/models/%00"])
def test_nul_in_an_address_is_a_400(reader: TestClient, address: str) -> None:
    assert reader.get(address).status_code == 400


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"collection": "x"}, "missing_required_parameter", "question"),
        ({"question": 7, "collection": "x"}, "invalid_value", "question"),
        ({"question": "a", "collection": "x", "colour": 1}, "unknown_parameter", "colour"),
        (
            {"question": "a", "collection": "x", "history": [{"role": "user"}]},
            "missing_required_parameter",
            "history.0.content",
        ),
        (
            {"question": "a", "collection": "x", "filter": {"type": "like"}},
            "invalid_filter",
            "filters",
        ),
    ],
)
def test_invalid_bodies_name_the_parameter(
    reader: TestClient, body: Any, code: str, param: str
) -> None:
    assert_refused(post(reader, json.dumps(body).encode()), 400, code=code, param=param)


def test_a_missing_collection_is_a_404_with_near_names(reader: TestClient) -> None:
    response = post(reader, b'{"question": "a", "collection": "handbok"}')
    assert_refused(response, 404, code="collection_not_found")
    assert "'handbook'" in response.json()["error"]["message"]


def test_a_question_of_100_kb_is_refused_as_too_large(reader: TestClient) -> None:
    body = json.dumps({"question": "why " * 25_000, "collection": "handbook"}).encode()
    assert_refused(post(reader, body), 413, code="too_large", param="question")


def test_a_body_past_the_limit_is_refused_whatever_it_declares(
    fast_settings: Any, open_client: Any
) -> None:
    client = open_client(fast_settings(server={"max_body_bytes": 1000}))
    assert_refused(post(client, b" " * 1001), 413, code="too_large")

    def pieces() -> Any:  # sent in chunks, without a length
        for _ in range(20):
            yield b" " * 100

    undeclared = client.post("/v1/answers", content=pieces(), headers=JSON)
    assert_refused(undeclared, 413, code="too_large")


def test_an_upload_past_the_limit_is_refused_and_leaves_nothing(
    fast_settings: Any, open_client: Any, tmp_path: Any
) -> None:
    client = open_client(fast_settings(server={"max_upload_bytes": 100_000}))
    for size in (100_001, 400_000):
        files = {"file": ("large.txt", b"x" * size)}
        response = client.post("/v1/files", files=files, data={"purpose": "assistants"})
        assert_refused(response, 413, code="too_large")
    assert client.get("/v1/files").json()["data"] == []
    assert [path for path in (tmp_path / "data" / "files").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", ""])
def test_another_media_type_is_a_415(reader: TestClient, media_type: str) -> None:
    response = reader.post(
        "/v1/answers", content=b'{"question": "a"}', headers={"content-type": media_type}
    )
    assert_refused(response, 415, code="unsupported_media_type")


def test_an_upload_that_is_no_form_is_a_415(reader: TestClient) -> None:
    assert_refused(reader.post("/v1/files", json={}), 415, code="unsupported_media_type")


def test_a_form_without_a_file_is_a_400(reader: TestClient) -> None:
    response = reader.post("/v1/files", files={"other": ("a", b"b")})
    assert_refused(response, 400, code="missing_required_parameter", param="file")
    broken = reader.post(
        "/v1/files", content=b"--x\r\nno", headers={"content-type": "multipart/form-data"}
    )
    assert broken.status_code == 400


def test_unknown_routes_and_methods_have_the_same_shape(reader: TestClient) -> None:
    assert_refused(reader.get("/v1/nothing"), 404, code="unknown_route")
    wrong = reader.put("/v1/answers")
    assert_refused(wrong, 405, code="method_not_allowed")
    assert "POST" in wrong.headers["allow"]


def test_outside_v1_errors_are_problem_details(reader: TestClient) -> None:
    response = reader.get("/nothing")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["title"]) == (404, "Not Found")
    assert problem["detail"] == "No route GET '/nothing'"


def test_an_unexpected_error_is_a_500_with_an_id_and_no_trace(
    fast_settings: Any, open_client: Any
) -> None:
    client = open_client(fast_settings())

    async def broken() -> None:
        raise KeyError("a secret of the inside")

    client.app.add_api_route("/v1/broken", broken)
    response = client.get("/v1/broken", headers={"x-request-id": "abc-1"})
    assert_refused(response, 500, code="internal_error")
    assert response.headers["x-request-id"] == "abc-1"
    assert "abc-1" in response.json()["error"]["message"]
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-123", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("<x>", False)],
)
def test_a_sane_request_id_is_kept(reader: TestClient, given: str, is_kept: bool) -> None:
    answered = reader.get("/health/live", headers={"x-request-id": given}).headers["x-request-id"]
    assert (answered == given) == is_kept
    assert answered


def test_every_exception_of_the_tree_has_a_status() -> None:
    def leaves(parent: type[Exception]) -> list[type[Exception]]:
        children = parent.__subclasses__()
        return [parent, *(leaf for child in children for leaf in leaves(child))]

    found = [kind for kind in leaves(tree.RagstoneError) if kind.__module__ == "infra.errors"]
    assert len(found) >= 19
    unnamed = [kind for kind in found if not any(parent in STATUSES for parent in kind.__mro__[:3])]
    assert unnamed == []
    assert describe(tree.Encrypted("x")).status == 400
    assert describe(tree.TooLarge("x", parameter="p")).status == 413
    assert describe(tree.NotReady("x")).headers == {"Retry-After": "1"}


def test_an_unwrapped_cause_decides_the_status(client: TestClient) -> None:
    del client
    from starlette.exceptions import HTTPException

    wrapped = HTTPException(400, "There was an error parsing the body")
    wrapped.__cause__ = tree.TooLarge("too much")
    assert describe(wrapped).status == 413
