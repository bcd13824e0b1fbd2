"""The processes of one training: which of them this is, what they agree on, and whether they do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from infra.errors import Conflict, RagstoneError
from infra.plugins import require
from training.sentinel import Aborted

Result = TypeVar("Result")


class SaidByFirst(Conflict):
    """All processes end for one reason, which the first of them says."""


class NotTheSame(Aborted):
    """Processes train adapters of their own."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process among those that torchrun, or nobody, started."""

    number: int = 0
    local: int = 0
    """Among those of its machine."""
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes."""
        return self.number == 0


def this_rank() -> Rank:
    """Return what torchrun says that this process is."""
    told = os.environ.get
    return Rank(
        number=int(told("RANK", "0")),
        local=int(told("LOCAL_RANK", "0")),
        world=int(told("WORLD_SIZE", "1")),
    )


def begin(*, on_cpu: bool) -> Rank:
    """Bring the processes that torchrun started together; alone, nothing happens."""
    rank = this_rank()
    if rank.world > 1:
        require("accelerate", extra="finetune").PartialState(cpu=on_cpu)
    return rank


def told_by_first(work: Callable[[], Result]) -> Result:
    """Run something in the first process, and return in all of them what it gave.

    Raises:
        RagstoneError: it did; in the other processes that is `SaidByFirst`.
    """
    torch = require("torch", extra="finetune")
    if not _is_many(torch):
        return work()
    told: list[Any] = [None]
    failure: RagstoneError | None = None
    if torch.distributed.get_rank() == 0:
        try:
            told = [(work(), None)]
        except RagstoneError as error:
            failure, told = error, [(None, error.message)]
    torch.distributed.broadcast_object_list(told)
    result, words = told[0]
    if failure is not None:
        raise failure
    if words is not None:
        raise SaidByFirst(words)
    return cast("Result", result)


def of_all(value: Result) -> list[Result]:
    """Return what each process has, in their order; all of them must ask."""
    torch = require("torch", extra="finetune")
    if not _is_many(torch):
        return [value]
    told: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(told, value)
    return told


def any_of(flag: bool) -> bool:
    """Return whether the flag is set in any process; all of them must ask."""
    return any(of_all(flag))


def wait_for_all() -> None:
    """Go on once all processes have come here."""
    any_of(False)


def share_gradients(model: Any, *, is_last: Callable[[], bool]) -> None:
    """Have weights that each process holds a copy of begin alike, and move by the mean gradient.

    These are adapters on a base that is sharded: nothing else adds up what the processes find. Sums
    are divided here, because gloo knows no mean.

    Args:
        model: of which whatever is trained is whole in every process.
        is_last: whether the backward pass at hand is the last one before the optimiser's step.
    """
    torch = require("torch", extra="finetune")
    if not _is_many(torch):
        return

    def average(weight: Any) -> None:
        if is_last():
            torch.distributed.all_reduce(weight.grad)
            weight.grad.div_(torch.distributed.get_world_size())

    for weight in model.parameters():
        if weight.requires_grad:
            torch.distributed.broadcast(weight.data, src=0)
            weight.register_post_accumulate_grad_hook(average)


def check_same_adapter(model: Any, *, step: int) -> str:
    """Return the digest of the weights that are trained; all processes must ask.

    Raises:
        NotTheSame: processes hold different ones, so that each trains an adapter of its own.
    """
    digest = adapter_digest(model)
    told = of_all(digest)
    if len(set(told)) > 1:
        odd = next(rank for rank, each in enumerate(told) if each != told[0])
        raise NotTheSame(
            f"Step {step}: process {odd} holds another adapter than process 0; they do not share "
            "their gradients, so that what would be saved is the adapter of one of them"
        )
    return digest


@contextmanager
def said_once() -> Iterator[None]:
    """Have the first process alone say that they train adapters of their own, which all find.

    Raises:
        NotTheSame: they do; in the other processes that is `SaidByFirst`.
    """
    try:
        yield
    except NotTheSame as error:
        if this_rank().is_first:
            raise
        raise SaidByFirst(error.message) from error


def adapter_digest(model: Any) -> str:
    """Return the SHA-256 over the names and bytes of the weights that are trained."""
    whole = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            whole.update(name.removeprefix("module.").encode())
            whole.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return f"sha256:{whole.hexdigest()}"


def _is_many(torch: Any) -> bool:
    return bool(torch.distributed.is_available() and torch.distributed.is_initialized())
