"""Predictions of classical models: reading rows and tensors, loading, batching, recording."""
