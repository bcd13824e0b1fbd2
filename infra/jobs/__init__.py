"""Durable jobs: queued in the database, run by workers, gone on with after a crash."""
