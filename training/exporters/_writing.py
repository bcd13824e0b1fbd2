"""What writing a model takes in any format: quiet libraries, and failures in a line."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from infra.errors import InvalidRequest


@contextmanager
def quietly() -> Iterator[None]:
    """Keep from users what libraries print, log, and warn of in each other and themselves."""
    before = logging.root.manager.disable
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Write a model quietly.

    Raises:
        InvalidRequest: the model cannot be written so; says the first line of why.
    """
    try:
        with quietly():
            yield
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequest(f"The model cannot be written for {what}: {first}") from error
