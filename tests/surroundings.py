"""What a developer's machine has around it is not to decide what a test sees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def no_settings_from_outside(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let go of RAGSTONE_* variables, and of any `ragstone.toml` but one in `folder`."""
    for name in list(os.environ):
        if name.startswith("RAGSTONE_") and name != "RAGSTONE_TEST_DATA":
            patch.delenv(name)
    patch.chdir(folder)
