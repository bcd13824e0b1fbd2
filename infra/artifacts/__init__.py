"""Versioned trees of files."""
