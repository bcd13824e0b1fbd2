"""The shapes of requests and responses over HTTP, as pydantic models."""
