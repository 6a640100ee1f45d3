"""Server steps of a round, one per file."""
