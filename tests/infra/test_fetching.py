"""URLs of strangers: nothing private is reached, no answer is too long, slow, or elsewhere."""

from __future__ import annotations

import gzip
import io
import ipaddress
import re
import time
import traceback
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, strategies

from infra.errors import (
    ExceedsLimit,
    FetchFailed,
    FetchRefused,
    InvalidConfiguration,
    Unsupported,
)
from infra.fetching import Answer, Bounds, Fetcher, Resolve, is_public, resolve_by_system
from web_server import Page, Site, serving

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as started:
        yield started


@pytest.fixture
def other() -> Iterator[Site]:
    with serving() as started:
        yield started


def fetch(
    site: Site,
    url: str,
    *,
    resolve: Resolve = resolve_by_system,
    media_types: tuple[str, ...] = (),
    **bounds: object,
) -> tuple[Answer, bytes]:
    """Fetch with leave to reach the port of the site, and no other."""
    file = io.BytesIO()
    allowed = (f"127.0.0.1:{site.port}",)
    limits = Bounds(allowed_addresses=allowed, **bounds)  # type: ignore[arg-type]
    answer = Fetcher(limits, resolve=resolve).fetch(url, file, media_types=media_types)
    return answer, file.getvalue()


@pytest.mark.parametrize("address", PRIVATE)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))

    def resolve(host: str, port: int) -> Sequence[str]:
        return [address]

    with pytest.raises(FetchRefused, match="not a public address"):
        Fetcher(Bounds(), resolve=resolve).fetch("http://example.org/", io.BytesIO())


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_address_is_one(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(strategies.ip_addresses(v=4))
def test_ipv4_address_in_ipv6_clothes_is_as_public_as_itself(
    address: ipaddress.IPv4Address,
) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        dressed = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + int(address))
        assert is_public(dressed) == is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "ftp://example.org/",
        "http://",
        "http:///path",
        "//example.org/",
        "http://user:password@example.org/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://[::1",
        "http://example.org/\r\nX-Injected: 1",
        "http://example.org/a b",
        "http://example.org\\@127.0.0.1/",
        "http://example.org/" + "a" * 5000,
        "",
    ],
)
def test_url_that_is_none_or_of_another_scheme_is_refused(url: str) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError(f"{host} was looked up")

    with pytest.raises(FetchRefused):
        Fetcher(Bounds(), resolve=resolve).fetch(url, io.BytesIO())


@pytest.mark.parametrize(
    "url",
    [
        "http://ada:pass/word@x",
        "ftp://ada:password@x",
        "http://ada:pass[word@x",
        "http://ada:password@",
    ],
)
def test_no_password_is_told_of_a_url_that_is_refused(url: str) -> None:
    with pytest.raises(FetchRefused) as refused:
        Fetcher(Bounds()).fetch(url, io.BytesIO())
    told = "".join(traceback.format_exception(refused.value, limit=0))
    assert not re.search("pass|word", told)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "0"])
def test_loopback_by_any_name_is_refused(site: Site, host: str) -> None:
    with pytest.raises(FetchRefused):
        Fetcher(Bounds()).fetch(f"http://{host}:{site.port}/", io.BytesIO())
    assert site.asked == []


def test_page_is_fetched_with_its_type(site: Site) -> None:
    site.put("/a?b=c", "Hello.", Content_Type="Text/HTML; charset=utf-8")
    answer, body = fetch(site, f"{site.url}/a?b=c#part")
    assert (answer.status, answer.media_type, answer.size, body) == (200, "text/html", 6, b"Hello.")
    assert site.headers[0]["Host"] == f"127.0.0.1:{site.port}"


def test_leave_for_one_port_is_none_for_another(site: Site, other: Site) -> None:
    other.put("/", "Secret.")
    with pytest.raises(FetchRefused):
        fetch(site, f"{other.url}/")
    site.pages["/go"] = Page(status=302, headers={"Location": f"{other.url}/"})
    with pytest.raises(FetchRefused):
        fetch(site, f"{site.url}/go")
    assert other.asked == []


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "http://169.254.169.254/latest/", "http://[::1]:80/", "ftp://x/"],
)
def test_redirect_is_judged_as_the_first_address(site: Site, target: str) -> None:
    site.pages["/go"] = Page(status=301, headers={"Location": target})
    with pytest.raises(FetchRefused):
        fetch(site, f"{site.url}/go")


def test_name_is_resolved_once_and_the_address_judged_is_the_one_connected_to(
    site: Site, other: Site
) -> None:
    site.put("/", "The first.")
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["10.0.0.1"]])
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return next(answers)

    url = f"http://rebinding.example:{site.port}/"
    assert fetch(site, url, resolve=resolve)[1] == b"The first."
    assert asked == [("rebinding.example", site.port)]
    assert site.headers[0]["Host"] == f"rebinding.example:{site.port}"
    with pytest.raises(FetchRefused):  # it answers otherwise now
        fetch(site, url, resolve=resolve)
    assert len(site.asked) == 1


def test_redirect_to_a_name_that_was_rebound_is_refused(site: Site) -> None:
    site.pages["/go"] = Page(status=302, headers={"Location": "/again"})
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    with pytest.raises(FetchRefused, match=r"169\.254\.169\.254"):
        fetch(site, f"http://x.example:{site.port}/go", resolve=lambda *_: next(answers))


def test_one_private_address_among_public_ones_is_enough_to_refuse(site: Site) -> None:
    with pytest.raises(FetchRefused):
        fetch(site, "http://x.example/", resolve=lambda *_: ["8.8.8.8", "10.0.0.1"])


def test_redirects_are_counted_and_circles_seen(site: Site) -> None:
    for number in range(10):
        site.pages[f"/{number}"] = Page(status=302, headers={"Location": f"/{number + 1}"})
    with pytest.raises(FetchFailed, match="more than 3 times"):
        fetch(site, f"{site.url}/0", max_redirects=3)
    assert site.asked == ["/0", "/1", "/2", "/3"]
    site.pages["/round"] = Page(status=307, headers={"Location": "/round"})
    with pytest.raises(FetchFailed, match="circle"):
        fetch(site, f"{site.url}/round")
    site.pages["/nowhere"] = Page(status=302)
    with pytest.raises(FetchFailed, match="nowhere"):
        fetch(site, f"{site.url}/nowhere")


def test_body_without_end_is_cut_at_the_limit(site: Site) -> None:
    def forever(stream: io.BytesIO) -> None:
        while True:
            stream.write(b"more " * 10_000)

    site.pages["/"] = Page(write=forever)
    with pytest.raises(ExceedsLimit, match="100,000 bytes"):
        fetch(site, f"{site.url}/", max_bytes=100_000)


def test_length_beyond_the_limit_is_refused_unread(site: Site) -> None:
    site.pages["/"] = Page(headers={"Content-Length": "1000000"}, write=lambda _: None)
    with pytest.raises(ExceedsLimit):
        fetch(site, f"{site.url}/", max_bytes=1000)


@pytest.mark.parametrize("where", ["body", "headers"])
def test_server_that_drips_is_left_at_the_deadline(site: Site, where: str) -> None:
    def drip(stream: io.BytesIO) -> None:
        for _ in range(100):
            stream.write(b"x")
            time.sleep(0.05)

    site.pages["/"] = Page(write=drip)
    if where == "headers":

        def drip_headers(stream: io.BytesIO) -> None:
            raise AssertionError("never reached")

        class Slow(dict):  # type: ignore[type-arg]
            def items(self):  # type: ignore[no-untyped-def]
                for number in range(100):
                    time.sleep(0.05)
                    yield f"X-{number}", "x"

        site.pages["/"] = Page(headers=Slow(), write=drip_headers)
    began = time.monotonic()
    with pytest.raises(FetchFailed, match="longer than|timed out"):
        fetch(site, f"{site.url}/", timeout_seconds=0.4)
    assert time.monotonic() - began < 3


def test_gzip_is_unpacked_and_a_bomb_is_cut_at_the_limit(site: Site) -> None:
    packed = gzip.compress(b"Hello.") + gzip.compress(b" Again.")
    site.put("/small", packed, Content_Encoding="gzip")
    assert fetch(site, f"{site.url}/small")[1] == b"Hello. Again."
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    site.put("/bomb", bomb, Content_Encoding="gzip")
    with pytest.raises(ExceedsLimit):
        fetch(site, f"{site.url}/bomb", max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip at all"),
        ("gzip", gzip.compress(b"Hello." * 1000, mtime=0)[:-20]),
        ("br", b"what was not asked for"),
    ],
)
def test_body_packed_wrongly_is_a_failure(site: Site, encoding: str, body: bytes) -> None:
    site.put("/", body, Content_Encoding=encoding)
    with pytest.raises(FetchFailed):
        fetch(site, f"{site.url}/")


def test_body_that_breaks_off_is_a_failure(site: Site) -> None:
    site.pages["/"] = Page(
        headers={"Content-Length": "100"}, write=lambda stream: stream.write(b"short")
    )
    with pytest.raises(FetchFailed):
        fetch(site, f"{site.url}/")


def test_media_type_that_is_not_wanted_is_not_read(site: Site) -> None:
    site.put("/", b"RIFF", Content_Type="video/webm")
    with pytest.raises(Unsupported, match="video/webm"):
        fetch(site, f"{site.url}/", media_types=("text/",))


def test_failure_tells_its_status(site: Site) -> None:
    with pytest.raises(FetchFailed, match="404") as caught:
        fetch(site, f"{site.url}/absent")
    assert caught.value.status == 404


def test_port_that_nobody_listens_on_is_a_failure(site: Site) -> None:
    with serving() as gone:
        pass
    with pytest.raises(FetchFailed, match="does not answer") as caught:
        fetch(gone, f"{gone.url}/")
    assert caught.value.status is None


@pytest.mark.parametrize("text", ["everything", "10.0.0.1/8", "127.0.0.1:x", "", "[::1"])
def test_leave_that_is_no_network_is_an_error_of_the_settings(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="allowed_addresses"):
        Fetcher(Bounds(allowed_addresses=(text,)))
