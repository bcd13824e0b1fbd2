"""Two processes that move one weight each, or train one adapter; says what becomes of it."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
import transformers
import trl

from infra.errors import InvalidRequest, RagstoneError
from training import adapted_model, ranks, smoke
from training.finetune import Around, finetune
from training.places import Places
from training.sentinel import Aborted
from training.spec import read
from training.together import Together


def say(**values: Any) -> None:
    # `print` writes the end apart, and another line may come between.
    sys.stdout.write(f"{json.dumps({'rank': ranks.this_rank().number, **values})}\n")


def move(*, shares: bool) -> None:
    """Move a weight by rows of each process's own."""
    rank = ranks.begin(on_cpu=True)
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0 + rank.number)
    batches = [torch.full((1, 2), 1.0 + 2 * rank.number + step) for step in range(2)]
    if shares:
        at = iter([False, True])
        ranks.share_gradients(model, is_last=lambda: next(at))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for batch in batches:
        model(batch).sum().backward()
    optimizer.step()
    said = "same"
    try:
        ranks.check_same_adapter(model, step=1)
    except Aborted as error:
        said = error.message
    found = ranks.told_by_first(lambda: model.weight.tolist()[0])
    say(shares=shares, weight=found, said=said)


def refuse() -> None:
    """Have the first process refuse what all are about to do."""

    def refused() -> None:
        raise InvalidRequest("no")

    try:
        ranks.told_by_first(refused)
    except RagstoneError as error:
        say(kind=type(error).__name__, said=error.message)


def wait() -> None:
    """Have process 1 not come to its end."""
    work = dict if ranks.this_rank().is_first else Event().wait
    parts = Together("cpu", grace_seconds=0.1, patience_seconds=0.1).parts(work)
    done = [each is not None for each in parts.each]
    say(done=done, are_whole=parts.are_whole)


def changed_in_training(patch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Have something done in process 1 whenever a model is about to learn."""
    attach = adapted_model.attach

    def attached(*given: Any, **named: Any) -> Any:
        model = attach(*given, **named)
        if not ranks.this_rank().is_first:
            model.get_input_embeddings().register_forward_pre_hook(
                lambda module, _: change(model) if module.training else None
            )
        return model

    patch.setattr(adapted_model, "attach", attached)


def no_sharing(patch: pytest.MonkeyPatch) -> None:
    """Each trains an adapter of its own, from numbers of its own."""
    attach = adapted_model.attach
    patch.setattr(ranks, "share_gradients", lambda *_, **__: None)

    def attached(model: Any, method: Any, *, seed: int) -> Any:
        return attach(model, method, seed=seed + ranks.this_rank().number)

    patch.setattr(adapted_model, "attach", attached)
    patch.setattr(smoke, "CHECKS", (smoke.only_adapter, smoke.resume))


def sums(patch: pytest.MonkeyPatch) -> None:
    """Gradients of all are added, and not their mean."""
    share = ranks.share_gradients

    def added(model: Any, *, is_last: Callable[[], bool]) -> None:
        share(model, is_last=is_last)

        def double(weight: Any) -> None:
            weight.grad *= 2 if is_last() else 1

        for weight in model.parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(double)

    patch.setattr(ranks, "share_gradients", added)
    patch.setattr(smoke, "CHECKS", (smoke.accumulation,))


def forgets(patch: pytest.MonkeyPatch) -> None:
    """What the optimiser knew is not read from a checkpoint."""
    patch.setattr(transformers.Trainer, "_load_optimizer_and_scheduler", lambda *_: None)
    patch.setattr(smoke, "CHECKS", (smoke.resume,))


def strays(patch: pytest.MonkeyPatch) -> None:
    """The base moves in process 1."""

    def move_base(model: Any) -> None:
        model.get_output_embeddings().weight.data += 1e-4

    changed_in_training(patch, move_base)
    patch.setattr(smoke, "CHECKS", (smoke.only_adapter,))


def fills(patch: pytest.MonkeyPatch) -> None:
    """Process 1 runs out of memory, and process 0 waits for its gradients."""

    def fill(_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    changed_in_training(patch, fill)


def no_number(patch: pytest.MonkeyPatch) -> None:
    """What process 1 learns from is no number, and nothing is tried before."""

    def spoil(model: Any) -> None:
        model.get_input_embeddings().weight.data.fill_(float("nan"))

    changed_in_training(patch, spoil)
    patch.setattr(smoke, "CHECKS", ())


def apart(patch: pytest.MonkeyPatch) -> None:
    """Each trains an adapter of its own, and nothing is tried before."""
    no_sharing(patch)
    patch.setattr(smoke, "CHECKS", ())


FAULTS = {each.__name__: each for each in (no_sharing, sums, forgets, strays, no_number, apart)}


def train(how: str, folder: Path) -> None:
    """Train what a folder says, in a folder of the run in it; `how` may name a fault."""
    notes: list[str] = []
    around = Around(Places(folder, None, None, Path), smokes=how != "at once", note=notes.append)
    with pytest.MonkeyPatch.context() as patch:
        if how in FAULTS:
            FAULTS[how](patch)
        try:
            finetune(read(folder / "spec.yaml"), folder / "run", around)
        except Aborted as error:
            notes.append(f"Aborted: {error.message}")
        except ranks.SaidByFirst as error:
            notes.append(f"SaidByFirst: {error.message}")
    say(how=how, folder=folder.name, notes=notes)


def be_light() -> None:
    """Have no collection of garbage go through the libraries, as `light_training` does."""
    _ = trl.SFTTrainer  # which imports most of what training takes
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    mode, *words = sys.argv[1:]
    if mode == "moves":
        move(shares=True)
        move(shares=False)
        refuse()
        wait()
    elif mode == "trains":
        be_light()
        for word in words:
            how, _, place = word.partition(":")
            train(how, Path(place))
    else:
        from service.cli import main

        be_light()
        fills(pytest.MonkeyPatch())
        sys.argv[1:] = words
        main()
