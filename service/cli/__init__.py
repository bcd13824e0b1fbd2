"""The terminal: a file per verb; each command parses, calls one function and prints."""

from service.cli.entry import main

__all__ = ["main"]
