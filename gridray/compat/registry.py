"""The benchmarks that `gridray compat` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.compat import anm6_scores, mapdn_scores, powergym_scores, powerzoo_scores
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from gridray.compat.base import Anchor

ANCHORS: dict[str, Anchor] = {
    "anm6": anm6_scores.ANCHOR,
    "mapdn": mapdn_scores.ANCHOR,
    "powergym": powergym_scores.ANCHOR,
    "powerzoo": powerzoo_scores.ANCHOR,
}
"""Name of a benchmark -> what it offers."""


def find_anchor(name: str) -> Anchor:
    """Return the named benchmark.

    Raises:
        ConfigError: there is none.
    """
    if name not in ANCHORS:
        raise ConfigError(f"There is no benchmark '{name}': give one of {', '.join(sorted(ANCHORS))}.")
    return ANCHORS[name]
