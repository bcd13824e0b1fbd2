"""Processes that train one weight each on rows of their own; says what becomes of it."""

from __future__ import annotations

import json
import sys

import torch

from training import ranks
from training.sentinel import Aborted


def main(shares: bool) -> None:
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
    print(json.dumps({"rank": rank.number, "weight": found, "said": said}))


if __name__ == "__main__":
    main(sys.argv[1] == "shares")
