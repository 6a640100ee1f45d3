"""The client's part of each federated algorithm, one per file."""
