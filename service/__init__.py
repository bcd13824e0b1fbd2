"""HTTP, terminal and web console: the only place that wires the parts together."""
