"""The policy behind an endpoint: HTTP interface, Ray Serve deployment and its ingress."""
