"""Reader of OpenDSS models."""

from __future__ import annotations

from gridray.feeders.opendss.reader import read_opendss

__all__ = ["read_opendss"]
