"""Losses for Prometheus, through the metrics that every Ray node offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray
from ray.util.metrics import Gauge

if TYPE_CHECKING:
    from gridray.algorithms.train import HistoryRow


class TrainingGauges:
    """Shows the last row of a run's history where a Ray is running, and does nothing where none is.

    `ray_gridray_training_loss` has the tags algorithm and loss, `ray_gridray_training_updates` the tag algorithm; a
    node's metrics are at its MetricsExportPort (`ray.nodes()`), /metrics, within ten seconds and for half a minute.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._gauges: tuple[Gauge, Gauge] | None = None

    def __call__(self, row: HistoryRow) -> None:
        """Show the row."""
        if not ray.is_initialized():
            return
        if self._gauges is None:
            self._gauges = (
                Gauge(
                    "gridray_training_loss",
                    description="Mean of a loss over the updates since the report before.",
                    tag_keys=("algorithm", "loss"),
                ),
                Gauge(
                    "gridray_training_updates",
                    description="Gradient steps taken.",
                    tag_keys=("algorithm",),
                ),
            )
        losses, updates = self._gauges
        for name, value in row.metrics.items():
            losses.set(value, tags={"algorithm": self._algorithm, "loss": name})
        updates.set(row.num_updates, tags={"algorithm": self._algorithm})
