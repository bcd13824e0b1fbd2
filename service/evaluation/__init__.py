"""Evaluations of what this process serves: suites, targets, judges and test sets."""
