"""What of the service a suite can evaluate: a file is a kind of target, `build(kind, parts)`."""
