"""Tracking: runs with their parameters, metrics over time, data, environment and code."""
