"""Versioned tables: Parquet, JSON Lines, CSV and Hugging Face datasets as artifacts."""
