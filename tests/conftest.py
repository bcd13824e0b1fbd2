"""Fixtures every test may use: an empty environment, the shared data, databases of both kinds."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import longest
import postgresql
from infra.database.engine import Database
from infra.database.migrate import upgrade
from infra.settings import Settings, load_settings
from migrated import put_schema
from service.wiring import Components
from surroundings import no_settings_from_outside
from vllm_server import Unavailable as NoVllm
from vllm_server import VllmServer, shared_server

ROOT = Path(__file__).parent.parent
THOROUGH = {"benchmarks", "e2e", "faults"}
"""Folders whose tests start servers and trainings, kill them and count: `make test` has no time."""

# Machines that test are shared: how long an example takes says nothing.
hypothesis.settings.register_profile(
    "shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first: workers that share files end together then."""
    tests = ROOT / "tests"
    for item in items:
        if item.path.relative_to(tests).parts[0] in THOROUGH:
            item.add_marker(pytest.mark.thorough)
    items.sort(key=lambda item: longest.place(item.path.relative_to(tests).as_posix()))


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_settings_from_outside(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets; the test is skipped where it is absent."""
    folder = Path(os.environ.get("RAGSTONE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real datasets here; RAGSTONE_TEST_DATA names their folder")
    return folder


@pytest.fixture(scope="module")
def light_training() -> Iterator[None]:
    """Train on one thread, and have no collection of garbage go through the libraries again."""
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl")
    _ = trl.SFTTrainer  # which imports most of what training takes
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    try:
        with postgresql.running_server() as url:
            yield url
    except postgresql.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> VllmServer:
    """The one real vLLM of the run, with a tiny random model; skipped where it is not installed.

    Tests of any file and process share it: leave no adapters behind, and expect other requests.
    """
    base = tmp_path_factory.getbasetemp()
    side_by_side = "PYTEST_XDIST_WORKER" in os.environ
    try:
        return shared_server(
            (base.parent if side_by_side else base) / "vllm",
            owner=os.getppid() if side_by_side else os.getpid(),
        )
    except NoVllm as reason:
        pytest.skip(str(reason))


@pytest.fixture
def vllm_alone(vllm_server: VllmServer) -> Iterator[VllmServer]:
    """The real vLLM, with nobody else's requests."""
    with vllm_server.turn(alone=True):
        yield vllm_server


@pytest.fixture
def vllm_beside(vllm_server: VllmServer) -> Iterator[VllmServer]:
    """The real vLLM, unless a test has it for itself."""
    with vllm_server.turn(alone=False):
        yield vllm_server


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> str:
    """The name of a database at the current schema, to be copied."""
    url = postgresql.create(postgresql_server)
    database = Database(url)
    upgrade(database)
    database.close()
    return url.rpartition("/")[2]


@pytest.fixture
def postgresql_url(postgresql_server: str, postgresql_template: str) -> Iterator[str]:
    """The URL of a database of its own, at the current schema."""
    url = postgresql.create(postgresql_server, template=postgresql_template)
    yield url
    postgresql.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database at the current schema, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{put_schema(tmp_path / 'test.db')}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a table, once of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    url = postgresql.create(request.getfixturevalue("postgresql_server"))
    yield url
    postgresql.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database at the current schema."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings for fast tests: the hashing embedder, everything else as shipped."""
    return load_settings(
        data_folder=tmp_path / "data",
        database_url=database_url,
        retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
    )


@pytest.fixture
def open_components() -> Iterator[Callable[[Settings], Components]]:
    """Build components that are closed at the end of the test."""
    opened: list[Components] = []

    def open_(settings: Settings) -> Components:
        opened.append(Components(settings))
        return opened[-1]

    yield open_
    for components in opened:
        components.close()


@pytest.fixture
def components(settings: Settings, open_components: Any) -> Components:
    built: Components = open_components(settings)
    return built
