"""Federated training: coordinator, clients, and the rules of what may pass between them."""
