"""Web pages as a source: sitemaps, lists, conditional questions, robots.txt, and hostile sites."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import Conflict, FetchFailed, FetchRefused, InvalidRequest, SourceFailed
from infra.settings import Sources as Limits
from retrieval.collections import Collection
from retrieval.ingest import Summary
from retrieval.sources import Context, Item, Unwalkable, web
from retrieval.sources.web import Web
from retrieval.sync import Options
from retrieval.synced import Synced
from service.wiring import Components
from web_server import Page, Site, serving


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as started:
        started.put("/sitemap.xml", sitemap(started, "a", "b", "c"), Content_Type="text/xml")
        for name in "abc":
            page = f"<html><title>Page {name}</title><body><p>This is {name}.</p></body></html>"
            started.put(f"/{name}", page, ETag=f'"{name}1"')
        yield started


def sitemap(site: Site, *names: str, kind: str = "url") -> str:
    outer = {"url": "urlset", "sitemap": "sitemapindex"}[kind]
    rows = "".join(f"<{kind}><loc>{site.url}/{name}</loc></{kind}>" for name in names)
    return f'<{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</{outer}>'


def open_web(site: Site, path: str = "/sitemap.xml", limits: object = None, **options: str) -> Web:
    allowed = (f"127.0.0.1:{site.port}",)
    settings = {"allowed_addresses": allowed, "timeout_seconds": 5, **(limits or {})}  # type: ignore[dict-item]
    return web.build(f"{site.url}{path}", Context(Limits(**settings), options))


def listed(origin: Web) -> list[str]:
    return [item.uri.rsplit("/", 1)[1] for item in origin.list() if isinstance(item, Item)]


@pytest.fixture
def sync(components: Components) -> Callable[..., Summary]:
    into: Collection = components.collections.create("stones", components.recipe())

    def run(origin: Web, *, allow_deletes: bool = False) -> Summary:
        synced = Synced(components.database, into, origin.identity)
        plan = components.syncer.plan(synced.known(), origin)
        summary = Summary(unchanged=plan.unchanged)
        options = Options(allow_deletes=allow_deletes)
        for event in components.syncer.run(into, origin, synced, plan, options=options):
            summary.add(event)
        return summary

    return run


def test_pages_of_a_sitemap_are_followed_and_asked_for_only_if_changed(
    site: Site, sync: Callable[..., Summary]
) -> None:
    assert sync(open_web(site)).added == 3
    again = sync(open_web(site))
    assert (again.unchanged, again.chunks) == (3, 0)
    assert site.headers[-1]["If-None-Match"] == '"c1"'
    site.put("/b", "<p>Other words.</p>", ETag='"b2"')
    site.put("/sitemap.xml", sitemap(site, "a", "b"))
    summary = sync(open_web(site))
    assert (summary.updated, summary.removed, summary.unchanged) == (1, 1, 1)


def test_page_that_is_gone_is_removed_and_one_that_fails_is_kept(
    site: Site, sync: Callable[..., Summary]
) -> None:
    sync(open_web(site))
    site.pages["/a"] = Page(status=410)
    site.pages["/b"] = Page(status=503)
    summary = sync(open_web(site))
    assert (summary.removed, summary.unchanged) == (1, 1)
    assert [each.code for each in summary.skipped] == ["http_503"]


def test_site_that_suddenly_has_no_pages_is_not_believed(
    site: Site, sync: Callable[..., Summary]
) -> None:
    sync(open_web(site))
    for name in "abc":
        del site.pages[f"/{name}"]
    with pytest.raises(Conflict, match="3 of 3 documents"):
        sync(open_web(site))
    assert sync(open_web(site), allow_deletes=True).removed == 3


def test_index_of_sitemaps_is_read_once_each_and_its_loops_end(site: Site) -> None:
    site.put("/index.xml", sitemap(site, "sitemap.xml", "index.xml", "more.xml", kind="sitemap"))
    site.put("/more.xml", sitemap(site, "index.xml", "sitemap.xml", kind="sitemap"))
    assert sorted(listed(open_web(site, "/index.xml"))) == ["a", "b", "c"]
    assert site.asked.count("/index.xml") == site.asked.count("/sitemap.xml") == 1


def test_index_that_names_ever_new_sitemaps_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MAX_SITEMAPS", 5)
    for number in range(10):
        site.put(f"/{number}.xml", sitemap(site, f"{number + 1}.xml", kind="sitemap"))
    with pytest.raises(SourceFailed, match="more than 5 sitemaps"):
        listed(open_web(site, "/0.xml"))


def test_packed_sitemap_is_read_and_a_bomb_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/s.xml.gz", gzip.compress(sitemap(site, "a", "b").encode()))
    assert listed(open_web(site, "/s.xml.gz")) == ["a", "b"]
    monkeypatch.setattr(web, "MAX_SITEMAP_BYTES", 100_000)
    site.put("/s.xml.gz", gzip.compress(b"<urlset>" + b" " * 1_000_000 + b"</urlset>"))
    with pytest.raises(SourceFailed, match="unpacks to more"):
        listed(open_web(site, "/s.xml.gz"))


def test_sitemap_with_more_pages_than_allowed_stops_the_sync(
    site: Site, components: Components
) -> None:
    components.settings.sources.__dict__["max_items"] = 2
    with pytest.raises(SourceFailed, match="more than 2 documents"):
        components.syncer.plan({}, open_web(site))


@pytest.mark.parametrize(
    "body",
    [
        "<html><body>Not found, but 200",
        "",
        '<!DOCTYPE x [<!ENTITY a "b">]><urlset><url><loc>&a;',
        "<urlset><url><loc>",
    ],
)
def test_sitemap_that_is_none_or_breaks_off_is_no_listing(site: Site, body: str) -> None:
    site.put("/sitemap.xml", body)
    with pytest.raises(SourceFailed, match="not a sitemap"):
        listed(open_web(site))


def test_entities_of_a_sitemap_read_no_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish")
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{(tmp_path / "secret").as_uri()}">]>'
    site.put("/sitemap.xml", f"{entity}<urlset><url><loc>/a&e;</loc></url></urlset>")
    assert not [uri for uri in listed(open_web(site)) if "swordfish" in uri]


def test_pages_on_other_hosts_are_reported_and_not_fetched(site: Site) -> None:
    foreign = "<url><loc>http://169.254.169.254/latest/meta-data</loc></url>"
    site.put("/sitemap.xml", sitemap(site, "a").replace("</urlset>", foreign + "</urlset>"))
    found = list(open_web(site).list())
    assert [each.code for each in found if isinstance(each, Unwalkable)] == ["outside"]
    site.put("/i.xml", sitemap(site, "x", kind="sitemap").replace(site.url, "http://10.0.0.1"))
    with pytest.raises(SourceFailed, match="another host"):
        listed(open_web(site, "/i.xml"))


def test_page_that_redirects_inside_is_reported_and_nothing_is_reached(
    site: Site, sync: Callable[..., Summary]
) -> None:
    with serving() as inner:
        inner.put("/", "Secret.")
        site.pages["/a"] = Page(status=302, headers={"Location": f"{inner.url}/"})
        site.pages["/b"] = Page(status=302, headers={"Location": "file:///etc/passwd"})
        summary = sync(open_web(site))
        assert inner.asked == []
    assert summary.added == 1
    assert [each.code for each in summary.skipped] == ["refused", "refused"]


def test_robots_txt_is_heeded(site: Site, sync: Callable[..., Summary]) -> None:
    site.put("/robots.txt", "User-agent: ragstone\nDisallow: /b\n", Content_Type="text/plain")
    summary = sync(open_web(site))
    assert (summary.added, [each.code for each in summary.skipped]) == (2, ["refused"])
    assert "/b" not in site.asked
    assert site.asked.count("/robots.txt") == 1
    assert sync(open_web(site, limits={"ignore_robots": True})).added == 1


def test_robots_txt_that_does_not_answer_forbids_all(site: Site) -> None:
    site.pages["/robots.txt"] = Page(status=500)
    with pytest.raises(FetchFailed, match="500"):
        listed(open_web(site))


def test_list_of_urls_may_stand_in_a_file_or_on_a_site(site: Site, tmp_path: Path) -> None:
    text = f"# pages\n{site.url}/a\n\n  {site.url}/b#part\n"
    (tmp_path / "urls.txt").write_text(text)
    context = Context(Limits(allowed_addresses=(f"127.0.0.1:{site.port}",)))
    assert listed(web.build(str(tmp_path / "urls.txt"), context)) == ["a", "b"]
    site.put("/urls.txt", text)
    assert listed(open_web(site, "/urls.txt", **{"as": "list"})) == ["a", "b"]
    with pytest.raises(SourceFailed, match="No such file"):
        listed(web.build(str(tmp_path / "absent.txt"), context))


def test_one_page_and_globs(site: Site) -> None:
    assert listed(open_web(site, "/a")) == ["a"]
    assert listed(open_web(site, include="*/a,*/c", exclude="*/c")) == ["a"]
    with pytest.raises(InvalidRequest, match="as='crawl'"):
        open_web(site, **{"as": "crawl"})


def test_address_that_must_not_be_listed_is_refused() -> None:
    with pytest.raises(FetchRefused):
        listed(web.build("http://127.0.0.1:9/sitemap.xml", Context(Limits())))


def test_pictures_are_not_read(site: Site, sync: Callable[..., Summary]) -> None:
    site.put("/a", b"\x89PNG", Content_Type="image/png")
    summary = sync(open_web(site))
    assert [each.code for each in summary.skipped] == ["unsupported"]
