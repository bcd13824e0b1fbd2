"""Answers written by a chat model: prompts, room, sources as data, citations from a stream."""
