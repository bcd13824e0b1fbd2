"""What sbatch is given: the requests for resources, and the script of a run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from training.launchers import Spec, _limits, _ranks

# Slurm may be asked twice, when who asked dies before writing down the answer. The job that is
# first to link its number into the folder runs; any other one ends at once. The traps keep the
# shell alive to write down how the program ended; the requests to end go to the step.
SCRIPT = r"""#!/bin/sh
cd {state} || exit 1
printf '%s\n' "$SLURM_JOB_ID" > "job.$SLURM_JOB_ID"
ln "job.$SLURM_JOB_ID" job 2> /dev/null
rm -f "job.$SLURM_JOB_ID"
[ "$(cat job)" = "$SLURM_JOB_ID" ] || exit 0
trap : TERM INT HUP
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first" --oneliner | sed 's/.* NodeAddr=\([^ ]*\) .*/\1/')
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
PET_MASTER_ADDR=$MASTER_ADDR PET_MASTER_PORT=$MASTER_PORT
export MASTER_ADDR MASTER_PORT PET_MASTER_ADDR PET_MASTER_PORT
began=$(date +%s)
srun --export=ALL --kill-on-bad-exit=1 --chdir={folder} -- {command}
code=$?
printf '%s %s\n' "$code" "$(($(date +%s) - began))" > ended.part && mv ended.part ended
exit "$code"
"""
ON_A_NODE = 'export {number}="$SLURM_PROCID"; exec "$@"'


def script(spec: Spec, state: Path, *, torchrun: Sequence[str]) -> str:
    """Return what the first node of a run executes, in the run's folder."""
    command = _ranks.on_each_node(spec, torchrun=torchrun)
    prologue = ON_A_NODE.format(number=_ranks.number_variable(spec))
    return SCRIPT.format(
        state=shlex.quote(str(state)),
        folder=shlex.quote(spec.folder),
        command=shlex.join([*_limits.timeout(spec), "sh", "-c", prologue, "sh", *command]),
    )


def requests(spec: Spec) -> list[str]:
    requests = [
        f"--job-name={spec.name}",
        f"--nodes={spec.nodes}",
        f"--ntasks={spec.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={spec.cpus}",
        "--export=ALL",
        "--no-requeue",
        "--open-mode=append",
    ]
    if spec.gpus:
        requests.append(f"--gpus-per-node={spec.gpus}")
    if spec.memory_bytes:
        requests.append(f"--mem={math.ceil(spec.memory_bytes / 2**20)}M")
    if spec.time_limit_seconds is not None:
        # Slurm counts minutes; it only has to end what `timeout` could not.
        seconds = spec.time_limit_seconds + spec.grace_seconds
        requests.append(f"--time={math.ceil(seconds / 60) + 1}")
    return requests
