"""Two processes that move one weight each, or train one adapter; says what becomes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from training import ranks
from training.finetune import Around, finetune
from training.places import Places
from training.sentinel import Aborted
from training.spec import read


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
    line = json.dumps({"rank": rank.number, "shares": shares, "weight": found, "said": said})
    sys.stdout.write(f"{line}\n")  # `print` writes the end apart, and another line may come between


def train(folder: Path) -> None:
    """Train what a folder says, in a folder of the run in it."""
    finetune(
        read(folder / "spec.yaml"),
        folder / "run",
        Around(Places(folder, None, None, Path), smokes=False),
    )


if __name__ == "__main__":
    if sys.argv[1] == "moves":
        move(shares=True)
        move(shares=False)
    for place in sys.argv[2:]:
        train(Path(place))
