"""Judges: models that rate answers by a rubric, and what says how far they can be trusted."""
