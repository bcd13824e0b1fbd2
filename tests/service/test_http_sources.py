"""Sources over HTTP: only of addresses that the operator allows, run as jobs, removed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from service.work.remote_sources import check_remote
from web_server import serving


def test_source_is_made_run_and_removed(fast_settings: Any, open_client: Any) -> None:
    with serving() as site:
        site.put("/handbook/a", "<p>Employees have 27 days of leave.</p>", ETag='"1"')
        allowed = (f"127.0.0.1:{site.port}",)
        settings = {"remote": (f"{site.url}/handbook",), "allowed_addresses": allowed}
        client = open_client(fast_settings(sources=settings))
        client.post("/v1/vector_stores", json={"name": "rules"})
        body = {"name": "a", "source": f"{site.url}/handbook/a", "collection": "rules"}
        made = client.post("/v1/sources", json={**body, "every": "6h"})
        assert (made.status_code, made.json()["cron"]) == (200, "0 */6 * * *"), made.text
        assert client.post("/v1/sources", json=body).status_code == 409
        assert [each["name"] for each in client.get("/v1/sources").json()["data"]] == ["a"]
        job = client.post("/v1/sources/a/run", json={}).json()
        deadline = time.monotonic() + 60
        while job["finished_at"] is None and time.monotonic() < deadline:
            time.sleep(0.05)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert (job["state"], job["result"]["added"]) == ("succeeded", 1)
        assert client.delete("/v1/sources/a?documents=true").json()["deleted"] is True
        assert client.get("/v1/vector_stores/rules/files").json()["data"] == []
        assert client.get("/v1/sources/a").status_code == 404


def test_place_that_is_not_listed_is_forbidden(client: Any) -> None:
    client.post("/v1/vector_stores", json={"name": "rules"})
    for place in ("/etc", "sql:pages", "git:/srv", "https://example.org/", "s3://bucket/x"):
        body = {"name": "x", "source": place, "collection": "rules"}
        assert client.post("/v1/sources", json=body).status_code == 403, place


@pytest.mark.parametrize(
    "place",
    [
        "https://example.org.evil.com/docs/a",
        "https://example.org@evil.com/docs/a",
        "https://example.org:444/docs/a",
        "http://example.org/docs/a",
        "https://example.org/docsother",
        "https://example.org/docs/../secret",
        "https://example.org/docs/%2e%2e/secret",
        "web:https://example.org/docs/a",
        "s3://other/handbook/a",
        "s3:file:///docs",
        "https://[::1",
    ],
)
def test_place_beside_those_listed_is_forbidden(place: str) -> None:
    allowed = ("https://example.org/docs/", "s3://bucket/handbook")
    with pytest.raises(HTTPException):
        check_remote(place, {}, allowed=allowed)
    assert check_remote("https://example.org/docs/a", {}, allowed=allowed).kind == "web"
    with pytest.raises(HTTPException):
        check_remote("https://example.org/docs/a", {"as": "list"}, allowed=allowed)
