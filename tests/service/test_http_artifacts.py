"""Artifacts over HTTP: versions, files by range, aliases by compare-and-swap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference

ROOT = "/v1/artifacts"
FAQ = f"{ROOT}/dataset/faq"
ALIAS = f"{FAQ}/aliases/production"
LARGE = bytes(range(256)) * 10_000
"""Stored as a blob of its own; the small files share a pack."""


@pytest.fixture
def faq(client: TestClient) -> list[Reference]:
    """Two versions of `dataset/faq` and a report made from the first."""
    store = client.app.state.components.artifacts  # type: ignore[attr-defined]
    folder = Path("faq")
    (folder / "deep").mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"question": "Where?"}\n')
    (folder / "deep" / "ünïcode name.txt").write_text("déjà vu")
    (folder / "large.bin").write_bytes(LARGE)
    (folder / "empty").touch()
    first = store.put(folder, "dataset/faq", Made(metadata={"rows": 1}))
    (folder / "empty").unlink()
    (folder / "train.jsonl").write_text('{"question": "When?"}\n')
    second = store.put(folder, "dataset/faq", Made(metadata={"rows": 2}))
    store.put(folder, "report/check", Made(parents=[("checked", str(first))]))
    return [first, second]


def test_names_versions_and_one_version(client: TestClient, faq: list[Reference]) -> None:
    names = client.get(ROOT).json()["data"]
    assert [item["reference"] for item in names] == ["dataset/faq@v2", "report/check@v1"]
    assert len(client.get(ROOT, params={"kind": "report"}).json()["data"]) == 1
    versions = client.get(FAQ).json()["data"]
    assert [item["version"] for item in versions] == [2, 1]
    for selector in ("v1", faq[0].digest):
        found = client.get(f"{FAQ}/{selector}").json()
        assert (found["digest"], found["metadata"]) == (faq[0].digest, {"rows": 1})
        assert (found["files"], found["has_more"]) == (4, False)
    newest = client.get(f"{FAQ}/latest").json()
    assert (newest["version"], newest["files"]) == (2, 3)


def test_files_are_listed_page_by_page(client: TestClient, faq: list[Reference]) -> None:
    seen: list[str] = []
    while True:
        query: dict[str, Any] = {"limit": 1, **({"after": seen[-1]} if seen else {})}
        page = client.get(f"{FAQ}/v1", params=query).json()
        seen += [entry["path"] for entry in page["entries"]]
        if not page["has_more"]:
            break
    assert seen == ["deep/ünïcode name.txt", "empty", "large.bin", "train.jsonl"]


def test_files_come_back_byte_for_byte(client: TestClient, faq: list[Reference]) -> None:
    expected = {
        "large.bin": LARGE,
        "train.jsonl": b'{"question": "Where?"}\n',
        "deep/ünïcode name.txt": "déjà vu".encode(),
        "empty": b"",
    }
    for path, content in expected.items():
        served = client.get(f"{FAQ}/v1/files/{path}")
        assert (served.status_code, served.content) == (200, content), path
        assert served.headers["content-length"] == str(len(content))
        assert served.headers["content-type"] == "application/octet-stream"
        assert served.headers["content-disposition"].startswith("attachment")
        tag = served.headers["etag"]
        again = client.get(f"{FAQ}/v1/files/{path}", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


def test_a_range_is_that_part_of_the_file(client: TestClient, faq: list[Reference]) -> None:
    contents = {"large.bin": LARGE, "train.jsonl": b'{"question": "Where?"}\n'}
    for path, content in contents.items():
        for asked, start, end in (
            ("bytes=0-9", 0, 10),
            ("bytes=5-", 5, None),
            ("bytes=-7", -7, None),
            ("bytes=1-99999999999", 1, None),
        ):
            served = client.get(f"{FAQ}/v1/files/{path}", headers={"Range": asked})
            assert (served.status_code, served.content) == (206, content[start:end])
            first = start % len(content)
            last = first + len(served.content) - 1
            assert served.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
            assert served.headers["content-length"] == str(len(served.content))
    behind = client.get(f"{FAQ}/v1/files/train.jsonl", headers={"Range": "bytes=100-"})
    assert behind.status_code == 416
    assert behind.headers["content-range"] == "bytes */23"
    assert behind.json()["error"]["code"] == "range_not_satisfiable"


def test_a_range_that_makes_no_sense_is_passed_over(
    client: TestClient, faq: list[Reference]
) -> None:
    for asked in ("bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "x"):
        served = client.get(f"{FAQ}/v1/files/train.jsonl", headers={"Range": asked})
        assert (served.status_code, len(served.content)) == (200, 23), asked


def test_a_range_of_what_the_file_was_before_gives_all_of_it(
    client: TestClient, faq: list[Reference]
) -> None:
    url = f"{FAQ}/v1/files/train.jsonl"
    tag = client.get(url).headers["etag"]
    same = client.get(url, headers={"Range": "bytes=0-1", "If-Range": tag})
    other = client.get(url, headers={"Range": "bytes=0-1", "If-Range": '"sha256:0"'})
    assert (same.status_code, other.status_code) == (206, 200)


def test_what_is_not_there_is_a_404_with_near_names(
    client: TestClient, faq: list[Reference]
) -> None:
    for url, near in (
        (f"{ROOT}/dataset/faw", "dataset/faq"),
        (f"{FAQ}/v9", "v2"),
        (f"{FAQ}/v1/files/train.json", "train.jsonl"),
        (f"{ROOT}/dataset/fax/v1/files/train.jsonl", "dataset/faq"),
    ):
        answered = client.get(url)
        assert answered.status_code == 404, url
        assert near in answered.json()["error"]["message"]
    assert client.get(f"{ROOT}/Dataset/faq/v1").status_code == 400
    assert client.get(ALIAS).status_code == 404
    assert client.delete(ALIAS).status_code == 404
    assert client.post(f"{ALIAS}/rollback").status_code == 404


def test_an_alias_moves_only_from_where_it_was_seen(
    client: TestClient, faq: list[Reference]
) -> None:
    first, second = faq
    made = client.put(ALIAS, json={"target": "v1"}, headers={"If-None-Match": "*"})
    assert (made.status_code, made.json()["digest"]) == (200, first.digest)
    tag = made.headers["etag"]
    assert tag == f'"{first.digest}"'
    taken = client.put(ALIAS, json={"target": "v2"}, headers={"If-None-Match": "*"})
    assert taken.status_code == 412
    assert taken.json()["error"]["code"] == "precondition_failed"
    moved = client.put(ALIAS, json={"target": "latest"}, headers={"If-Match": tag})
    assert moved.json()["digest"] == second.digest
    late = client.put(ALIAS, json={"target": "v1"}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert client.get(f"{FAQ}/production").json()["version"] == 2
    back = client.post(f"{ALIAS}/rollback", headers={"If-Match": moved.headers["etag"]})
    assert back.json()["digest"] == first.digest
    gone = client.delete(ALIAS)
    assert gone.json()["digest"] is None
    assert [move["action"] for move in gone.json()["history"]] == [
        "remove",
        "rollback",
        "move",
        "move",
    ]
    assert "etag" not in gone.headers
    assert client.get(f"{FAQ}/production").status_code == 404


def test_a_move_that_names_no_target_is_a_400(client: TestClient, faq: list[Reference]) -> None:
    for body in ({}, {"target": 1}, {"target": "v1", "more": 1}, {"target": ""}):
        assert client.put(ALIAS, json=body).status_code == 400
    assert client.put(f"{FAQ}/aliases/v7", json={"target": "v1"}).status_code == 400
    assert client.put(ALIAS, json={"target": "v7"}).status_code == 404


def test_difference_and_lineage(client: TestClient, faq: list[Reference]) -> None:
    found = client.get(f"{FAQ}/v2/diff", params={"against": "dataset/faq@v1"}).json()
    assert (found["added"], found["removed"], found["changed"]) == ([], ["empty"], ["train.jsonl"])
    assert (found["unchanged"], found["metadata"]) == (2, ["rows"])
    assert client.get(f"{FAQ}/v2/diff").status_code == 400
    up = client.get(f"{ROOT}/report/check/v1/lineage").json()
    assert up["names"][faq[0].digest] == ["dataset/faq@v1"]
    assert [edge["role"] for edge in up["edges"]] == ["checked"]
    down = client.get(f"{FAQ}/v1/lineage", params={"direction": "down"}).json()
    assert [edge["parent"] for edge in down["edges"]] == [faq[0].digest]


def test_a_download_holds_a_lease_and_gives_it_back(
    client: TestClient, faq: list[Reference]
) -> None:
    from sqlalchemy import func, select

    from infra.artifacts.tables import lease

    components = client.app.state.components  # type: ignore[attr-defined]
    with client.stream("GET", f"{FAQ}/v1/files/large.bin") as served:
        assert served.status_code == 200
        assert len(served.read()) == len(LARGE)
    with components.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(lease)) == 0


def test_a_key_is_asked_for(fast_settings: Any, open_client: Any) -> None:
    client = open_client(fast_settings(server={"authentication": "on"}))
    assert client.get(ROOT).status_code == 401
    assert client.get("/v1/jobs").status_code == 401
