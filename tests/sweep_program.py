"""Stands for `ragstone` in tests of sweeps: a run of no time, whose loss is known from its values.

Its loss falls to (log10(rate) + 3)^2 + seed/1000. A rate over 0.9 fails, one over 0.5 never ends;
with a file `hold` beside the folder of trials, none ends while it is there.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEPS = 20
EVALUATIONS = 10


def main(
    words: list[str],
    *,
    wait: Callable[[float], None] = time.sleep,
    write: Callable[[str], object] = sys.stderr.write,
) -> int:
    assert words[:2] == ["train", "rerun"]
    lock = json.loads(Path(words[2]).read_text())
    folder = Path(words[words.index("--folder") + 1])
    spec = lock["spec"]
    assert spec["register"] is None
    assert spec["sweep"] is None
    rate = spec["schedule"]["learning_rate"]
    with (folder / "starts").open("a") as starts:
        starts.write("started\n")
    if rate > 0.9:
        write("ragstone: the loss is nan\n")
        return 1
    final = (math.log10(rate) + 3) ** 2 + spec["seed"] / 1000
    for number in range(1, EVALUATIONS + 1):
        loss = final + 1.0 / number
        mark = {"step": number * STEPS // EVALUATIONS, "steps": STEPS}
        with (folder / "measurements.jsonl").open("a") as file:
            file.write(json.dumps({**mark, "metrics": {"eval_loss": loss}}) + "\n")
        while rate > 0.5 or (folder.parent.parent / "hold").exists():
            wait(0.02)
    outcome = {"last_loss": final, "steps": STEPS, "metrics": {"eval_loss": final}}
    draft = folder / "outcome.part"
    draft.write_text(json.dumps(outcome))
    draft.rename(folder / "outcome.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
