"""Signals from live traffic: metrics, groundedness, drift."""
