"""OpenAI's Responses: typed events over chat models and collections, kept for later turns."""
