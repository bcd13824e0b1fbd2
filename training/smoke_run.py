"""The smoke checks of a run: in its one process, or in all of them as they will train."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import count
from pathlib import Path

from training import adapted_model, bench, exhaustion, meshes, peak_memory, ranks, smoke
from training.accelerators import device_here
from training.bench import Bench
from training.lock import Lock
from training.meshes import Mesh
from training.ranks import NotTheSame, SaidByFirst
from training.resolving import Resolved
from training.run_folder import RunFolder
from training.sentinel import Aborted
from training.smoke import Result
from training.spec import FineTuning
from training.together import Parts, Together, Values

SCRATCH = "smoke-"
SAME = "same_adapter"
LEARNING = "overfit"
"""The check that the first process makes alone: answers end after a number of tokens that differs,
and processes that share a base cannot stop one by one."""


def require(
    spec: FineTuning,
    resolved: Resolved,
    lock: Lock,
    *,
    files: RunFolder,
    mesh: Mesh | None,
    note: Callable[[str], None],
) -> None:
    """Try whether a run would train well; all of its processes must ask, and the first one tells.

    What passed is not tried again by a run that goes on, by the same plan on the same device.

    Raises:
        Aborted: it would not; `SaidByFirst` in all but the first process.
        StorageFailed: that it passed cannot be written down.
    """
    rank = ranks.this_rank()
    device = adapted_model.device_of(spec.runtime.device, local_rank=rank.local)
    tried = {"lock": lock.digest, "device": _name_of(device)}
    if ranks.told_by_first(lambda: files.passed() == tried):
        if rank.is_first:
            note("smoke checks: they passed before, by the same plan on the same device")
        return
    alone = bench.build(spec, resolved, lock, device=device)
    if rank.world == 1:
        results = smoke.check(alone)
    else:
        peak_memory.make_ready(device)
        sizes = meshes.from_lock(lock.topology)
        shared = bench.build(spec, resolved, lock, device=device, mesh=mesh)
        with _scratch(files) as scratch:
            shared = replace(shared, data_ranks=sizes.data_ranks, scratch=scratch)
            results = check(shared, None if sizes.is_divided else alone, Together(device))
    if rank.is_first:
        for each in results:
            note(f"smoke {each.name}: {'ok' if each.passed else 'FAILED'}, {each.said}")
    if failures := smoke.failed(results):
        said = "; ".join(f"{each.name} ({each.said})" for each in failures)
        words = f"{spec.name!r} would not train well: {said}"
        raise Aborted(words) if rank.is_first else SaidByFirst(words)
    ranks.told_by_first(lambda: files.keep_passed(tried))


def check(shared: Bench, alone: Bench | None, together: Together) -> list[Result]:
    """Return what the checks of several processes find, the same in each of them.

    Checks that come after one in which a process failed by itself are not made.

    Args:
        shared: with the models of the run's own mesh.
        alone: with a base that is whole, for the first process; None where none holds one.
        together: of all of them.
    """
    results: list[Result] = []
    for each in smoke.CHECKS:
        if each.__name__ == LEARNING and alone is None:
            continue
        parts = together.parts(partial(_part, each, shared, alone))
        results.append(_agreed(each.__name__, parts))
        if not parts.are_whole or results[-1].name == SAME:
            return results
    world = ranks.this_rank().world
    return [*results, Result(SAME, True, f"{world} processes held it after every step")]


def _name_of(device: str) -> str:
    here = None if device == "cpu" else device_here()
    return device if here is None else here.name


def _part(check: Callable[[Bench], Result], shared: Bench, alone: Bench | None) -> Values:
    if check.__name__ == LEARNING and alone is not None:
        if not ranks.this_rank().is_first:
            return asdict(Result(LEARNING, True, "by the first process"))
        shared = alone
    try:
        return asdict(smoke.tried(check, shared))
    except NotTheSame as error:
        return asdict(Result(SAME, False, error.message))


def _agreed(name: str, parts: Parts) -> Result:
    """Return the first process's result, or the first one that is bad."""
    for rank, part in enumerate(parts.each):
        if part is not None and part.failure is not None:
            return Result(name, False, f"process {rank}: {part.failure}")
    late = [rank for rank, part in enumerate(parts.each) if part is None]
    if late:
        return Result(name, False, f"process {late[0]} does not come to its end")
    found = [Result(**part.values) for part in parts.each if part is not None and part.values]
    bad = next((rank for rank, each in enumerate(found) if not each.passed), None)
    if bad is None or found[0] == found[bad]:
        return found[0]
    return replace(found[bad], said=f"process {bad}: {found[bad].said}")


@contextmanager
def _scratch(files: RunFolder) -> Iterator[Callable[[], AbstractContextManager[str]]]:
    """Give folders that all processes see, which are beside the run's checkpoints.

    Each counts them for itself: they use the same ones in the same order.
    """
    whole = ranks.told_by_first(lambda: _new_folder(files.path))
    numbers = count()
    try:
        yield lambda: nullcontext(str(Path(whole) / str(next(numbers))))
    finally:
        if ranks.this_rank().is_first:
            shutil.rmtree(whole, ignore_errors=True)


def _new_folder(folder: Path) -> str:
    for left in folder.glob(f"{SCRATCH}*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    with exhaustion.storing(folder):
        return tempfile.mkdtemp(prefix=SCRATCH, dir=folder)
