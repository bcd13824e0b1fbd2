"""Sweeps: trials of one specification, each a run of its own, and what they found."""
