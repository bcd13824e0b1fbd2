"""Parts of training a classical model: rows, columns, splits, pipelines, search, export."""
