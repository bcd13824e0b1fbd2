"""The laws of sources, over each plug-in; git, SQL and buckets with what is hostile to them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from infra.errors import InvalidConfiguration, InvalidRequest, NotFound, SourceFailed
from infra.plugins import available
from infra.settings import Sources as Limits
from retrieval.sources import (
    Context,
    Fetched,
    Item,
    ItemVanished,
    Origin,
    Unwalkable,
    open_origin,
    parse_spec,
)
from web_server import serving

DOCUMENTS = {"a": "Kentish ragstone.", "b": "Knead the dough."}
QUERY = {"query": "SELECT id, title, body FROM page", "key": "id", "text": ["body"]}


class Place:
    """A real place that a plug-in reads, and how to change it."""

    def __init__(
        self,
        spec: str,
        put: Callable[[str, str], None],
        remove: Callable[[str], None],
        **limits: Any,
    ) -> None:
        self.put = put
        self.remove = remove
        self._spec = spec
        self._limits = Limits(**limits)

    def open(self) -> Origin:
        return open_origin(parse_spec(self._spec), Context(self._limits))

    def read(self, tmp_path: Path) -> dict[str, str]:
        """Every document by the first letter of its file name."""
        origin = self.open()
        found = {}
        for item in origin.list():
            assert isinstance(item, Item), item
            scratch = tmp_path / uuid.uuid4().hex
            scratch.mkdir()
            fetched = origin.fetch(item, scratch, known=None)
            assert isinstance(fetched, Fetched)
            found[item.filename[0]] = fetched.path.read_text().strip()
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Place:
    root = tmp_path / "docs"
    root.mkdir()
    return Place(
        str(root),
        lambda name, body: (root / f"{name}.txt").write_text(body) and None,
        lambda name: (root / f"{name}.txt").unlink(),
    )


@pytest.fixture
def git(tmp_path: Path) -> Place:
    root = tmp_path / "checkout"
    root.mkdir()
    run_git(root, "init", "--quiet", "--initial-branch=main")

    def put(name: str, body: str) -> None:
        (root / f"{name}.txt").write_text(body)
        run_git(root, "add", f"{name}.txt")
        run_git(root, "commit", "--quiet", "--message", name)

    def remove(name: str) -> None:
        run_git(root, "rm", "--quiet", f"{name}.txt")
        run_git(root, "commit", "--quiet", "--message", name)

    return Place(f"git:{root}#main", put, remove)


def run_git(root: Path, *words: str) -> None:
    author = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *author, "-C", str(root), *words], check=True, capture_output=True)


@pytest.fixture
def sql(tmp_path: Path) -> Place:
    path = tmp_path / "pages.db"
    execute(path, "CREATE TABLE page (id TEXT PRIMARY KEY, title TEXT, body TEXT)")
    return Place(
        "sql:pages",
        lambda name, body: execute(path, f"REPLACE INTO page VALUES ('{name}', 'T', '{body}')"),
        lambda name: execute(path, f"DELETE FROM page WHERE id = '{name}'"),
        sql={"pages": {**QUERY, "url": f"sqlite:///{path}"}},
    )


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def web() -> Iterator[Place]:
    with serving() as site:
        names: dict[str, None] = {}

        def publish() -> None:
            rows = "".join(f"<url><loc>{site.url}/{name}</loc></url>" for name in names)
            site.put("/sitemap.xml", f"<urlset>{rows}</urlset>")

        def put(name: str, body: str) -> None:
            names[name] = None
            site.put(f"/{name}", body, ETag=f'"{abs(hash(body))}"')
            publish()

        def remove(name: str) -> None:
            del names[name]
            publish()

        publish()
        allowed = (f"127.0.0.1:{site.port}",)
        yield Place(f"{site.url}/sitemap.xml", put, remove, allowed_addresses=allowed)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, Any]]:
    pytest.importorskip("s3fs", reason="s3fs is not installed; it comes with ragstone[s3]")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    listening = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{listening.port}"},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def s3(s3_server: dict[str, Any]) -> Place:
    from infra.artifacts.bucket import connect_filesystem

    name = f"b{uuid.uuid4().hex}"
    filesystem, _ = connect_filesystem(f"s3://{name}", **s3_server)
    filesystem.mkdir(name)
    return Place(
        f"s3://{name}/handbook",
        lambda key, body: filesystem.pipe(f"{name}/handbook/{key}.txt", body.encode()),
        lambda key: filesystem.rm_file(f"{name}/handbook/{key}.txt"),
        storage_options=s3_server,
    )


@pytest.fixture(params=["folder", "git", "s3", "sql", "web"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def test_every_plug_in_is_here() -> None:
    assert available("retrieval.sources") == ["folder", "git", "s3", "sql", "web"]


def test_what_is_listed_can_be_fetched_and_follows_the_place(place: Place, tmp_path: Path) -> None:
    for name, body in DOCUMENTS.items():
        place.put(name, body)
    assert place.read(tmp_path) == DOCUMENTS
    place.put("a", "Portland limestone.")
    place.put("c", "A third.")
    place.remove("b")
    assert place.read(tmp_path) == {"a": "Portland limestone.", "c": "A third."}


def test_uris_and_identity_are_the_same_in_another_process(place: Place) -> None:
    place.put("a", "Text.")
    first, second = place.open(), place.open()
    assert isinstance(first, Origin)
    assert first.identity == second.identity
    assert [each.uri for each in first.list()] == [each.uri for each in second.list()]


def test_version_changes_with_the_bytes_and_with_nothing_else(place: Place) -> None:
    place.put("a", "One.")

    def version() -> str | None:
        [item] = place.open().list()
        assert isinstance(item, Item)
        return item.version

    before = version()
    if before is None:
        pytest.skip("only fetching tells; or the file is too young to tell")
    assert version() == before
    place.put("a", "Two.")
    assert version() != before


def test_option_that_there_is_none_is_refused(place: Place) -> None:
    with pytest.raises(InvalidRequest, match="colour"):
        open_origin(parse_spec(place._spec), Context(place._limits, {"colour": "red"}))


def test_item_that_went_after_the_listing_is_told_apart_from_a_source_that_did(
    place: Place, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["place"] in {"git", "web"}:
        pytest.skip("a commit keeps what it held; a page of a site answers for itself")
    place.put("a", "Text.")
    origin = place.open()
    [item] = origin.list()
    assert isinstance(item, Item)
    place.remove("a")
    with pytest.raises(ItemVanished):
        origin.fetch(item, tmp_path, known=None)


@pytest.mark.parametrize(
    "ref",
    ["--upload-pack=touch /tmp/x", "-h", "--", "main;ls", "main..HEAD", "HEAD@{1}", "a b", "$(ls)"],
)
def test_ref_that_is_an_option_or_a_command_is_refused(git: Place, ref: str) -> None:
    place = git._spec.partition("#")[0]
    with pytest.raises(InvalidRequest, match="not the name of a commit"):
        open_origin(parse_spec(f"{place}#{ref}"), Context(Limits()))


def test_ref_that_is_not_there_and_folder_that_is_no_checkout_fail(
    git: Place, tmp_path: Path
) -> None:
    git.put("a", "Text.")
    checkout = git._spec.partition("#")[0]
    with pytest.raises(SourceFailed, match="no commit 'absent'"):
        list(open_origin(parse_spec(f"{checkout}#absent"), Context(Limits())).list())
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceFailed):
        list(open_origin(parse_spec(f"git:{tmp_path / 'plain'}"), Context(Limits())).list())


def test_programs_that_a_checkout_names_are_not_run(git: Place, tmp_path: Path) -> None:
    git.put("a", "Text.")
    root = Path(git._spec.removeprefix("git:").partition("#")[0])
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'sprung'}\ncat\n")
    trap.chmod(0o755)
    settings = (
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "filter.x.smudge",
        "diff.x.textconv",
    )
    for name in settings:
        run_git(root, "config", name, str(trap))
    (root / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        (root / ".git" / "hooks" / hook).write_text(trap.read_text())
        (root / ".git" / "hooks" / hook).chmod(0o755)
    assert git.read(tmp_path) == {"a": "Text."}
    assert not (tmp_path / "sprung").exists()


def test_links_and_uncommitted_files_of_a_checkout_are_not_read(git: Place, tmp_path: Path) -> None:
    root = Path(git._spec.removeprefix("git:").partition("#")[0])
    (root / "link.txt").symlink_to("/etc/passwd")
    run_git(root, "add", "link.txt")
    git.put("a", "Text.")
    (root / "draft.txt").write_text("Not yet.")
    (root / "a.txt").write_text("Not committed.")
    found = list(git.open().list())
    assert [each.code for each in found if isinstance(each, Unwalkable)] == ["link"]
    assert [each.filename for each in found if isinstance(each, Item)] == ["a.txt"]


def test_checkout_of_another_user_is_read(git: Place, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    git.put("a", "Text.")
    root = Path(git._spec.removeprefix("git:").partition("#")[0])
    for path in [root, *root.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert git.read(tmp_path) == {"a": "Text."}


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM page",
        "DELETE FROM page RETURNING id, title, body",
        "SELECT id, title, body FROM page; DELETE FROM page",
        "SELECT id, title, body FROM page) AS x; DELETE FROM page; --",
        "INSERT INTO page VALUES ('x', 'x', 'x') RETURNING id, title, body",
    ],
)
def test_query_that_writes_is_refused_and_writes_nothing(tmp_path: Path, query: str) -> None:
    path = tmp_path / "pages.db"
    execute(path, "CREATE TABLE page (id TEXT PRIMARY KEY, title TEXT, body TEXT)")
    execute(path, "INSERT INTO page VALUES ('a', 'T', 'Text.')")
    before = path.read_bytes()
    limits = Limits(sql={"pages": {**QUERY, "query": query, "url": f"sqlite:///{path}"}})
    with pytest.raises(SourceFailed):
        list(open_origin(parse_spec("sql:pages"), Context(limits)).list())
    assert path.read_bytes() == before


def test_postgresql_query_that_writes_is_refused_by_its_transaction(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE page (id int PRIMARY KEY, title text, body text)"))
        connection.execute(text("INSERT INTO page VALUES (1, 'One: a title', 'Text.')"))
        connection.execute(text("CREATE SEQUENCE counter"))
        connection.execute(
            text(
                "CREATE FUNCTION wipe() RETURNS int LANGUAGE sql AS 'DELETE FROM page RETURNING 1'"
            )
        )
    query = "SELECT id, title, body::text || ':x' AS body FROM page"
    for text_, works in [
        (query, True),
        ("SELECT wipe() AS id, '' AS title, '' AS body", False),
        ("SELECT nextval('counter') AS id, '' AS title, '' AS body", False),
        ("WITH gone AS (DELETE FROM page RETURNING *) SELECT * FROM gone", False),
    ]:
        limits = Limits(sql={"pages": {**QUERY, "query": text_, "url": postgresql_url}})
        origin = open_origin(parse_spec("sql:pages"), Context(limits))
        if works:
            assert [each.uri for each in origin.list()] == ["sql:pages/1"]
        else:
            with pytest.raises(SourceFailed):
                list(origin.list())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM page")).scalar() == 1
    engine.dispose()


def test_row_becomes_a_document_with_heading_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "pages.db"
    execute(path, "CREATE TABLE page (id INT, title TEXT, body TEXT, team TEXT, changed TEXT)")
    execute(path, "INSERT INTO page VALUES (7, 'Bread', 'Knead it.', 'kitchen', '2026-01-01')")
    definition = {
        "url": f"sqlite:///{path}",
        "query": "SELECT * FROM page;",
        "key": "id",
        "title": "title",
        "text": ["body"],
        "metadata": ["team"],
        "version": "changed",
    }
    origin = open_origin(parse_spec("sql:pages"), Context(Limits(sql={"pages": definition})))
    [item] = origin.list()
    assert isinstance(item, Item)
    assert (item.uri, item.version) == ("sql:pages/7", "2026-01-01")
    fetched = origin.fetch(item, tmp_path, known=None)
    assert isinstance(fetched, Fetched)
    assert fetched.path.read_text() == "# Bread\n\nKnead it."
    assert fetched.metadata == {"team": "kitchen"}
    execute(path, "INSERT INTO page VALUES (7, 'Twin', '', '', '')")
    with pytest.raises(SourceFailed, match="two rows"):
        list(origin.list())


def test_database_is_named_by_the_settings_alone(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="query"):
        open_origin(parse_spec("sql:sqlite:///etc/x.db"), Context(Limits()))
    wrong = {**QUERY, "url": "mysql://u:secret@host/name"}
    with pytest.raises(InvalidConfiguration) as caught:
        open_origin(parse_spec("sql:p"), Context(Limits(sql={"p": wrong})))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["s3:file:///etc", "s3:simplecache::s3://b/p", "local:///etc", "s3:x"]
)
def test_bucket_that_is_the_local_disk_is_refused(spec: str) -> None:
    with pytest.raises(InvalidRequest, match="not a bucket"):
        open_origin(parse_spec(spec), Context(Limits()))


def test_bucket_that_is_not_there_is_no_empty_one(s3_server: dict[str, Any]) -> None:
    limits = Limits(storage_options=s3_server)
    origin = open_origin(parse_spec("s3://never-made/handbook"), Context(limits))
    with pytest.raises(SourceFailed):
        list(origin.list())
