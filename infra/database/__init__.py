"""The database: the one truth that every index and cache is a view of."""
