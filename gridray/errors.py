"""Errors that users see: each names the thing, the value, the rule and the remedy."""

from __future__ import annotations


class GridRayError(Exception):
    """Base of all errors that GridRay raises on purpose; the CLI prints it and exits with 1."""


class ConfigError(GridRayError):
    """A configuration value or key is not valid."""


class FeederError(GridRayError):
    """A feeder file or model is not valid; the message lists every problem found."""


class DatasetError(GridRayError):
    """An offline dataset is missing, incomplete, damaged or of another kind."""


class BundleError(GridRayError):
    """A policy bundle is missing, damaged, or does not fit its use."""


class FederationError(GridRayError):
    """A federation message or client broke the rules of the round."""
