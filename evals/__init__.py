"""Suites, metrics and the gates that decide what goes live."""
