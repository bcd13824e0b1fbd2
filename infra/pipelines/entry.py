"""Runs in a step's own process: calls `module:function` with what a file says."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path


def main(call: str, result: str) -> None:
    """Call a function and write what it returned; its code comes from the working folder.

    Args:
        call: a JSON file with `module`, `function`, `paths` and `values`, the latter two by name.
        result: where the JSON goes.
    """
    asked = json.loads(Path(call).read_text(encoding="utf-8"))
    target = Path(result).absolute()  # before the function can go elsewhere
    sys.path.insert(0, os.getcwd())
    function = getattr(importlib.import_module(asked["module"]), asked["function"])
    paths = {name: Path(path) for name, path in asked["paths"].items()}
    returned = function(**paths, **asked["values"])
    text = json.dumps(returned, allow_nan=False)
    part = target.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
