"""Starting Ray: the only place that does."""
