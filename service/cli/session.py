"""Opens the parts a command needs from the settings in force, and closes them at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.settings import Settings
    from service.wiring import Components


@contextmanager
def opened(**overrides: Any) -> Iterator[Components]:
    """Yield the parts of this process; overrides win over `ragstone.toml` and the environment."""
    from infra.settings import load_settings
    from service.wiring import Components

    settings = load_settings(**overrides)
    log_to_terminal(settings)
    parts = Components(settings)
    try:
        yield parts
    finally:
        parts.close()


def log_to_terminal(settings: Settings) -> None:
    """Log readable lines; of the levels, what a person at the terminal has to know of."""
    from infra.telemetry import configure_logging

    if logging.getLogger().handlers:  # whoever called us in this process has set it up
        return
    level = "warning" if settings.logging.level == "info" else settings.logging.level
    configure_logging(settings.logging.model_copy(update={"format": "text", "level": level}))
