"""The card of a tuned model: what it is for, what it was made from, how it was judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAME = "README.md"


def write(folder: Path, lock: Mapping[str, Any], judgement: Mapping[str, Any]) -> None:
    """Write the card into the folder of a model; no question and no passage is quoted in it."""
    spec, counts, batches = lock["spec"], lock["counts"], lock["batches"]
    kind = lock["kind"]
    lines = [
        f"# {lock['name']}",
        "",
        f"{'An' if kind == 'embedder' else 'A'} {kind} tuned on questions with the passages of the "
        f"collection `{spec['data']['collection']}` that answer them.",
        "",
        "| what | is |",
        "|---|---|",
        f"| base | `{spec['base']['model'] or 'the model of the collection'}` |",
        f"| loss | `{spec['loss']}` |",
        f"| weights trained | {'low-rank, merged' if spec['lora'] else 'all'} |",
        f"| steps | {batches['steps']} of up to {batches['rows_per_step']} questions |",
        *(f"| {name} | {count:,} |" for name, count in counts.items()),
        *(f"| digest of `{name}` | `{digest}` |" for name, digest in lock["digests"].items()),
        "",
        "## Judged",
        "",
        f"On the questions held out, by {judgement['judged_by']}. Verdict: "
        f"**{judgement['verdict']}**.",
        "",
        "| metric | before | after | gate |",
        "|---|---|---|---|",
        *_rows(judgement["gates"]),
        "",
        "It was tuned for one collection: elsewhere it may be worse than its base.",
        "",
    ]
    (folder / NAME).write_text("\n".join(lines), encoding="utf-8")


def _rows(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"| {gate['metric']} | {gate['before']:.4f} | {gate['after']:.4f} | "
        f"{gate['verdict']}: {gate['reason']} |"
        for gate in gates
    ]
