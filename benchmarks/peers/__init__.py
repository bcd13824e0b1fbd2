"""Peers: other people's pipelines doing the same work, each in an environment of its own."""
