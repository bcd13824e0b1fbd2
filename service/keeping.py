"""Answers that could not be kept are told all the same: they are there, and were paid for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import StatementError

from infra.errors import RagstoneError

logger = logging.getLogger(__name__)


@contextmanager
def told_anyway(what: str) -> Iterator[None]:
    """Say in the log that something is not kept, and go on.

    What a store says in its own words, such as that the database is down, is a line. What the
    driver refuses is a fault of ours, which is logged as one. Anything else is raised.
    """
    try:
        yield
    except RagstoneError as error:
        logger.warning("%s: %s", what, error.message)
    except StatementError as error:
        logger.exception("%s: %s", what, type(error.orig).__name__)
