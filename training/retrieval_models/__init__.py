"""Embedders and rerankers, tuned on questions with passages of a collection that answer them."""
