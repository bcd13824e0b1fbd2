"""Pipelines: steps with versioned inputs and outputs, run again only where something changed."""
