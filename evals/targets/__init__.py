"""Targets that need nothing of the service: a file is a kind, with `build(kind, folder)`."""
