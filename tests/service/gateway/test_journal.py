"""What a journal tells after its process is gone."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.database.engine import Database
from infra.errors import StorageFailed
from service.gateway import heirs, journal, journal_files, journal_reading
from service.gateway.accounts import Reservation
from service.gateway.budgets import Budgets
from service.gateway.clerk import Clerk
from service.gateway.counts import Count
from service.gateway.journal import Journal
from service.gateway.ledger import Ledger
from service.gateway.prices import NANOS

ACCOUNT = ("budget_1", "total")
USAGE = ("2026-11-29", "key_1", "model", "")


def test_settled_is_charged_unended_at_its_most_and_reported_not_again(tmp_path: Path) -> None:
    written = Journal(tmp_path, "spender_1")
    first = written.reserve((ACCOUNT,), 10, usage=USAGE)
    second = written.reserve((ACCOUNT,), 20, usage=USAGE)
    third = written.reserve((ACCOUNT,), 40, usage=USAGE)
    written.settle(first, (ACCOUNT,), usage=USAGE, count=Count(1, 0, 5, 6, 7))
    reported = written.sequence
    written.refund(third)
    fourth = written.reserve((ACCOUNT,), 80, usage=USAGE)
    written.settle(fourth, (ACCOUNT,), usage=USAGE, count=Count(1, 0, 1, 1, 33))
    written.close()
    told = journal_reading.read(tmp_path, "spender_1", reported=reported)
    assert second.number
    assert told.spent == {ACCOUNT: 20 + 33}
    assert told.usage == {USAGE: Count(2, 1, 1, 1, 53)}
    assert told.is_certain


def test_a_line_that_was_being_written_had_no_effect(tmp_path: Path) -> None:
    written = Journal(tmp_path, "spender_1")
    written.reserve((ACCOUNT,), 10, usage=USAGE)
    written.close()
    (path,) = journal_files.segments(tmp_path, "spender_1")
    with path.open("ab") as file:
        file.write(b'00000000 ["R",2,99')
    told = journal_reading.read(tmp_path, "spender_1", reported=0)
    assert told.spent == {ACCOUNT: 10}
    assert told.is_certain


@pytest.mark.parametrize("at", [20, 60, 120])
def test_a_damaged_line_makes_the_rest_uncertain(tmp_path: Path, at: int) -> None:
    written = Journal(tmp_path, "spender_1")
    written.reserve((ACCOUNT,), 10, usage=USAGE)
    written.reserve((ACCOUNT,), 10, usage=USAGE)
    written.close()
    (path,) = journal_files.segments(tmp_path, "spender_1")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert not journal_reading.read(tmp_path, "spender_1", reported=0).is_certain


def test_files_go_once_all_in_them_has_ended_and_is_reported(tmp_path: Path) -> None:
    written = Journal(tmp_path, "spender_1", segment_bytes=100)
    entries = [written.reserve((ACCOUNT,), 1, usage=USAGE) for _ in range(6)]
    count = len(journal_files.segments(tmp_path, "spender_1"))
    assert count > 3
    for entry in entries[1:]:
        written.settle(entry, (ACCOUNT,), usage=USAGE, count=Count(1, 0, 1, 1, 1))
    written.trim(written.sequence)
    assert len(journal_files.segments(tmp_path, "spender_1")) == count  # the first is open
    written.settle(entries[0], (ACCOUNT,), usage=USAGE, count=Count(1, 0, 1, 1, 1))
    written.trim(written.sequence - 1)
    assert len(journal_files.segments(tmp_path, "spender_1")) == count
    written.trim(written.sequence)
    assert len(journal_files.segments(tmp_path, "spender_1")) == 1
    written.close()


def test_calls_that_cost_nothing_are_added_up_before_they_are_written(tmp_path: Path) -> None:
    ledger = Ledger(Journal(tmp_path, "spender_1"))
    (path,) = journal_files.segments(tmp_path, "spender_1")
    before = path.stat().st_size

    def call() -> None:
        reserved = ledger.reserve((), 0, usage=USAGE)
        assert isinstance(reserved, Reservation)
        ledger.settle(reserved, Count(requests=1))

    call()
    assert path.stat().st_size == before
    for _ in range(journal.ADDED_UP):
        call()
    written = journal_reading.read(tmp_path, "spender_1", reported=0)
    assert written.usage == {USAGE: Count(requests=journal.ADDED_UP)}
    request = ledger.prepare()
    assert request.usage == {USAGE: Count(requests=journal.ADDED_UP + 1)}
    assert journal_reading.read(tmp_path, "spender_1", reported=0).usage == request.usage
    assert journal_reading.read(tmp_path, "spender_1", reported=request.through).usage == {}


def test_files_of_calls_that_cost_nothing_do_not_grow_without_end(tmp_path: Path) -> None:
    written = Journal(tmp_path, "spender_1", segment_bytes=200)
    for _ in range(6):
        written.settle(None, (), usage=USAGE, count=Count(requests=1))
        written.flush()
    assert len(journal_files.segments(tmp_path, "spender_1")) > 1
    written.trim(written.sequence)
    assert len(journal_files.segments(tmp_path, "spender_1")) == 1
    written.close()


def test_the_living_are_not_inherited(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "money"
    alive = Journal(folder, "spender_1")
    assert heirs.inherit(database, folder, own="spender_2") == 0
    alive.close()
    assert heirs.inherit(database, folder, own="spender_2") == 1
    assert list(folder.iterdir()) == []


def test_what_a_process_elsewhere_had_borrowed_is_written_off_in_the_end(
    database: Database, tmp_path: Path
) -> None:
    budgets = Budgets(database)
    budget = budgets.put("all", "", period="total", amount=100 * NANOS)
    gone, here = Clerk(database, tmp_path / "gone"), Clerk(database, tmp_path / "here")
    for clerk in (gone, here):
        clerk.register()
        account = clerk.ledger.account((budget.id, "total"))
        account.low = 1
        clerk.ledger._active.add(account.id)
        clerk.turn()
    gone._journal.close()
    held = budgets.get(budget.id).held
    here.stop()
    left = budgets.get(budget.id).held
    assert 0 < left < held
    assert heirs.write_off(database) == 0
    later = datetime.now(UTC) + timedelta(days=31)
    assert heirs.write_off(database, now=later) == 1
    assert (budgets.get(budget.id).spent, budgets.get(budget.id).held) == (left, 0)


def test_after_a_restart_of_the_machine_all_that_was_borrowed_counts_as_spent(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = Budgets(database)
    budget = budgets.put("all", "", period="total", amount=100 * NANOS)
    clerk = Clerk(database, tmp_path)
    clerk.register()
    account = clerk.ledger.account((budget.id, "total"))
    account.low = 1
    clerk.ledger._active.add(account.id)
    clerk.turn()
    held = budgets.get(budget.id).held
    assert held == 25 * NANOS
    clerk._journal.close()
    other_boot = tmp_path / "boot"
    other_boot.write_text("another", encoding="ascii")
    monkeypatch.setattr(journal, "BOOT_ID", other_boot)
    heirs.inherit(database, tmp_path, own="")
    assert (budgets.get(budget.id).spent, budgets.get(budget.id).held) == (held, 0)


def test_a_part_that_cannot_be_removed_stays_until_it_can(tmp_path: Path) -> None:
    written = Journal(tmp_path, "spender_1", segment_bytes=1)
    entries = [written.reserve((ACCOUNT,), 1, usage=USAGE) for _ in range(3)]
    for entry in entries:
        written.settle(entry, (ACCOUNT,), usage=USAGE, count=Count(1, 0, 1, 1, 1))
    first = journal_files.segments(tmp_path, "spender_1")[0]
    first.unlink()
    first.mkdir()
    written.trim(written.sequence)
    assert len(journal_files.segments(tmp_path, "spender_1")) == 4
    first.rmdir()
    written.trim(written.sequence)
    assert len(journal_files.segments(tmp_path, "spender_1")) == 1
    written.close()


def test_one_journal_that_cannot_be_settled_does_not_keep_others_from_it(
    database: Database, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        Journal(tmp_path, f"spender_{number}").close()
    (path,) = journal_files.segments(tmp_path, "spender_2")
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageFailed, match="not settled"):
        heirs.inherit(database, tmp_path, own="")
    assert journal_files.spenders(tmp_path) == {"spender_2"}
    path.rmdir()
    assert heirs.inherit(database, tmp_path, own="") == 1


class Disk:
    """Stands before `fsync`: refuses the next ones, and then says that all is well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusals = 0
        self.synced: list[int] = []
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, descriptor: int) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fsync(descriptor)
        self.synced.append(os.fstat(descriptor).st_ino)


def test_a_failed_fsync_is_not_believed_when_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    written = Journal(tmp_path, "spender_1")
    ledger = Ledger(written)
    account = ledger.account(ACCOUNT)
    account.granted = 100
    first = ledger.reserve((account,), 10, usage=USAGE)
    assert isinstance(first, Reservation)
    ledger.begin(first)
    disk.refusals = 1
    with pytest.raises(StorageFailed, match="does not reach the disk"):
        ledger.sync()
    (refused, new) = journal_files.segments(tmp_path, "spender_1")
    second = ledger.reserve((account,), 20, usage=USAGE)
    assert isinstance(second, Reservation)
    ledger.begin(second)
    for _ in range(3):  # the disk is well again, which tells nothing of what it refused
        with pytest.raises(StorageFailed, match="doubtful until the database has it"):
            ledger.sync()
    assert new.stat().st_ino in disk.synced
    assert refused.stat().st_ino not in disk.synced
    told = journal_reading.read(tmp_path, "spender_1", reported=0)
    assert (told.spent, told.is_certain) == ({ACCOUNT: 30}, True)
    ledger.accept(ledger.prepare(), {})
    ledger.sync()  # the database has what there was to report
    ledger.settle(first, Count(1, 0, 1, 1, 10))
    ledger.sync()
    assert journal_files.segments(tmp_path, "spender_1") == [refused, new]
    ledger.accept(ledger.prepare(), {})
    assert journal_files.segments(tmp_path, "spender_1") == [new]
    written.close()


def test_a_file_that_the_disk_refused_while_another_was_begun_is_doubtful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    written = Journal(tmp_path, "spender_1", segment_bytes=1)
    written.reserve((ACCOUNT,), 10, usage=USAGE)
    disk.synced, disk.refusals = [], 1
    with pytest.raises(StorageFailed, match="cannot be noted"):
        written.reserve((ACCOUNT,), 10, usage=USAGE)
    assert written.is_doubtful
    written.reserve((ACCOUNT,), 10, usage=USAGE)
    assert disk.synced == []  # the one that was refused is not asked again
    assert written.is_doubtful
    written.trim(written.sequence)
    assert not written.is_doubtful
    written.close()
