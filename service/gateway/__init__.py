"""The gateway to model servers: who may ask how much, where it goes, what becomes of it."""
