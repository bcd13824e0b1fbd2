"""Adapters: other frameworks' interfaces over our collections, and their parts in our ingest."""
