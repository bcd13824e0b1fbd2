"""Any sequence of puts, tags, checkouts, collections and syncs, any of which may crash."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from infra.artifacts.failing import Crash, FailingFiles
from infra.artifacts.folder import Folder
from infra.artifacts.gc import Policy
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from migrated import put_schema

NAME = "dataset/d"
CONTENTS = {
    "empty": b"",
    "small": b"one" * 40,
    "small too": b"two" * 40,
    "large": b"L" * 300_000,
    "large too": b"M" * 300_000,
}
TREES = st.dictionaries(
    st.sampled_from(["a", "b", "sub/a", "sub/deep/c"]),
    st.sampled_from(sorted(CONTENTS)),
    max_size=4,
)
"""Words for contents, by path."""
LONG_TIMEOUT = pytest.mark.timeout(1800)
CRASHES = st.one_of(st.none(), st.tuples(st.integers(1, 70), st.booleans()))
"""Not at all, or at which call, and whether the power goes too."""

Files = dict[str, str]


def lay_out(files: Files, folder: Path) -> None:
    for path, word in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(CONTENTS[word])


class Machine(RuleBasedStateMachine):
    """The model: what each store's living versions and aliases must hold."""

    def __init__(self, folder: Path, template: Path) -> None:
        super().__init__()
        self.folder = folder
        self.later = timedelta(0)
        self.numbers = count()
        self.databases: dict[str, Database] = {}
        self.versions: dict[str, dict[int, Files]] = {"near": {}, "far": {}}
        self.aliases: dict[str, Files] = {}
        for name in ("near", "far"):
            shutil.copy(template, folder / f"{name}.db")
            self.databases[name] = Database(f"sqlite:///{folder / name}.db")
            self.open(name)

    def teardown(self) -> None:
        for database in self.databases.values():
            database.close()

    def open(self, name: str = "near", files: FailingFiles | None = None) -> ArtifactStore:
        files = files or FailingFiles()
        around = Surroundings(clock=lambda: datetime.now(UTC) + self.later, files=files, workers=1)
        return ArtifactStore(Folder(self.folder / name, files), self.databases[name], around)

    def attempt(
        self,
        crash: tuple[int, bool] | None,
        work: Callable[[ArtifactStore], object],
        *,
        on: str = "near",
    ) -> bool:
        """Run `work` against files that may crash; true if it came to its end."""
        files = FailingFiles(crash[0] if crash else None)
        try:
            work(self.open(on, files))
        except Crash:
            if crash and crash[1]:
                files.lose_power()
            return False
        return True

    def written(self, files: Files) -> Path:
        source = self.folder / f"source{next(self.numbers)}"
        source.mkdir()
        lay_out(files, source)
        return source

    def added(self, files: Files, *, on: str, finished: bool) -> None:
        """A version with these files appeared whole, or, if the work crashed, not at all."""
        known = self.versions[on]
        numbers = {row.reference.version for row in self.rows(on)} - known.keys()
        newest = known[max(known)] if known else None
        assert len(numbers) <= 1
        if finished and files != newest:
            assert numbers
        for number in numbers:
            assert number is not None
            known[number] = files

    def rows(self, on: str) -> list:  # type: ignore[type-arg]
        store = self.open(on)
        return store.versions(NAME) if store.names() else []

    @rule(files=TREES, crash=CRASHES)
    def put(self, files: Files, crash: tuple[int, bool] | None) -> None:
        source = self.written(files)
        finished = self.attempt(crash, lambda store: store.put(source, NAME))
        self.added(files, on="near", finished=finished)

    @rule(files=TREES, crash=CRASHES)
    def write(self, files: Files, crash: tuple[int, bool] | None) -> None:
        def work(store: ArtifactStore) -> None:
            with store.writer(NAME) as draft:
                lay_out(files, draft.folder)

        self.added(files, on="near", finished=self.attempt(crash, work))

    @precondition(lambda self: self.versions["near"])
    @rule(data=st.data(), alias=st.sampled_from(["production", "canary"]))
    def tag(self, data: st.DataObject, alias: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.versions["near"])))
        self.open().tag(f"{NAME}@v{number}", alias)
        self.aliases[alias] = self.versions["near"][number]

    @precondition(lambda self: self.versions["near"])
    @rule(data=st.data(), crash=CRASHES, mode=st.sampled_from(["hardlink", "copy"]))
    def check_out(self, data: st.DataObject, crash: tuple[int, bool] | None, mode: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.versions["near"])))
        out = self.folder / f"out{next(self.numbers)}"
        finished = self.attempt(
            crash,
            lambda store: store.checkout(f"{NAME}@v{number}", out, mode=mode),  # type: ignore[arg-type]
        )
        if finished:
            found = {
                path.relative_to(out).as_posix(): path.read_bytes()
                for path in out.rglob("*")
                if path.is_file()
            }
            wanted = self.versions["near"][number]
            assert found == {path: CONTENTS[word] for path, word in wanted.items()}

    @precondition(lambda self: self.versions["near"])
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.versions["near"])))
        self.open().expire(f"{NAME}@v{number}")
        del self.versions["near"][number]

    @rule(crash=CRASHES, days=st.sampled_from([0, 2, 9]), on=st.sampled_from(["near", "far"]))
    def collect(self, crash: tuple[int, bool] | None, days: int, on: str) -> None:
        self.later += timedelta(days=days)
        policy = Policy(grace=timedelta(0), trash=timedelta(days=1))
        self.attempt(crash, lambda store: store.gc(policy), on=on)

    @precondition(lambda self: self.versions["near"])
    @rule(crash=CRASHES, data=st.data())
    def sync(self, crash: tuple[int, bool] | None, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.versions["near"])))
        finished = self.attempt(
            crash, lambda far: self.open().sync(f"{NAME}@v{number}", far), on="far"
        )
        self.added(self.versions["near"][number], on="far", finished=finished)

    @invariant()
    def what_lives_is_whole(self) -> None:
        for on, versions in self.versions.items():
            assert {row.reference.version for row in self.rows(on)} == versions.keys()
            for number, files in versions.items():
                self.holds(self.open(on), f"{NAME}@v{number}", files)
        for alias, files in self.aliases.items():
            self.holds(self.open(), f"{NAME}@{alias}", files)

    def holds(self, store: ArtifactStore, reference: str, files: Files) -> None:
        found = {entry.path: entry.digest for entry in store.resolve(reference).entries}
        assert found == {
            path: f"sha256:{hashlib.sha256(CONTENTS[word]).hexdigest()}"
            for path, word in files.items()
        }
        assert store.verify(reference).sound


@pytest.mark.parametrize(
    "size",
    [
        pytest.param("short"),
        *(
            pytest.param(f"long, part {part} of 10", marks=[pytest.mark.slow, LONG_TIMEOUT])
            for part in range(1, 11)
        ),
    ],
)
def test_no_sequence_of_crashing_operations_loses_a_version(tmp_path: Path, size: str) -> None:
    template = put_schema(tmp_path / "template.db")
    runs = count()

    def make() -> Machine:
        folder = tmp_path / f"run{next(runs)}"
        folder.mkdir()
        return Machine(folder, template)

    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=25 if size == "short" else 50,
            stateful_step_count=12 if size == "short" else 30,
            deadline=None,
            derandomize=size == "short",
            suppress_health_check=list(HealthCheck),
        ),
    )
