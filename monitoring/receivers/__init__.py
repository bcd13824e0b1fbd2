"""Receivers of alarms: plug-ins that tell somebody of an event.

A plug-in is a file with `build(options)`, which raises `InvalidConfiguration` for options that it
does not take, and returns a function that takes an `Event` and raises `OSError` or `ValueError`
where it cannot be told.
"""
