"""Federated offline reinforcement learning for unbalanced distribution grids, on Ray."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridray.feeders.library import load_feeder
    from gridray.physics.compiled import compile_feeder
    from gridray.physics.powerflow import solve

__version__ = "0.1.0"
__all__ = ["__version__", "compile_feeder", "load_feeder", "solve"]

_LAZY = {
    "load_feeder": "gridray.feeders.library",
    "compile_feeder": "gridray.physics.compiled",
    "solve": "gridray.physics.powerflow",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the public functions at first use, so that `import gridray` stays light."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    message = f"module 'gridray' has no attribute {name!r}"
    raise AttributeError(message)
