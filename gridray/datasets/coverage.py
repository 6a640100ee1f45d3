"""What a dataset covers: histograms of actions, voltages and hours, read shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gridray.datasets.schema import to_arrays
from gridray.tasks.base import physical_observations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gridray.datasets.card import DatasetCard
    from gridray.datasets.dataset import OfflineDataset

ACTION_EDGES = np.linspace(-1.0, 1.0, 21)
VOLTAGE_EDGES = np.linspace(0.85, 1.15, 61)
LIMITS_PU = (0.95, 1.05)
"""ANSI C84.1 range A."""
MAX_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Counts over all rows.

    actions: int64 [num_actions, 20], over -1..1 (levels over their range); action_mean, action_std: float64
    [num_actions]; voltages: int64 [num_voltages, 60], over 0.85..1.15 pu, what lies beyond in the first and last;
    voltage_names; below, above: float64 [num_voltages], share of rows beyond 0.95..1.05 pu; hours: int64 [24], rows by
    hour of the timestamp (UTC); policies: rows by policy_index; first, last: timestamps; inferred_share: of rows whose
    actions nobody logged.
    """

    action_names: tuple[str, ...]
    actions: NDArray[np.int64]
    action_mean: NDArray[np.float64]
    action_std: NDArray[np.float64]
    voltage_names: tuple[str, ...]
    voltages: NDArray[np.int64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]
    hours: NDArray[np.int64]
    policies: dict[int, int]
    first: str | None
    last: str | None
    inferred_share: float

    def action_table(self) -> list[tuple[str, float, float, float, float]]:
        """Return name, mean, standard deviation, share of bins with rows and share of rows at an end, by action."""
        total = np.maximum(self.actions.sum(axis=1), 1)
        used = (self.actions > 0).mean(axis=1)
        at_ends = (self.actions[:, 0] + self.actions[:, -1]) / total
        columns = (self.action_names, self.action_mean, self.action_std, used, at_ends)
        return [(str(n), float(m), float(s), float(u), float(e)) for n, m, s, u, e in zip(*columns, strict=True)]

    def voltage_table(self) -> list[tuple[str, float, float]]:
        """Return name and share of rows below and above the limits, by metered node, worst first."""
        rows = zip(self.voltage_names, self.below.tolist(), self.above.tolist(), strict=True)
        return sorted(rows, key=lambda row: -(row[1] + row[2]))


def measure_coverage(dataset: OfflineDataset) -> Coverage:
    """Count over a dataset; memory does not grow with it."""
    card = dataset.card
    low, high = _action_range(card)
    voltage = [i for i, name in enumerate(card.observation_names) if name.startswith("vmag_pu.")]
    if not card.observation_channels:
        voltage = []
    channels = [card.observation_channels[i] for i in voltage]
    actions = np.zeros((len(low), len(ACTION_EDGES) - 1), dtype=np.int64)
    voltages = np.zeros((len(voltage), len(VOLTAGE_EDGES) - 1), dtype=np.int64)
    sums, beyond = np.zeros((2, len(low))), np.zeros((2, len(voltage)))
    hours, policies, inferred = np.zeros(24, dtype=np.int64), np.zeros(256, dtype=np.int64), 0
    stamps: list[np.datetime64] = []
    for file in dataset.files:
        for part in _batches(file):
            scaled = 2.0 * (part["actions"].astype(np.float64) - low) / (high - low) - 1.0
            sums += np.stack(
                (
                    part["actions"].sum(axis=0, dtype=np.float64),
                    np.square(part["actions"], dtype=np.float64).sum(axis=0),
                )
            )
            _count(actions, scaled, ACTION_EDGES)
            if voltage:
                pu = physical_observations(channels, part["obs"][:, voltage])
                _count(voltages, pu, VOLTAGE_EDGES)
                beyond += np.stack(((pu < LIMITS_PU[0]).sum(axis=0), (pu > LIMITS_PU[1]).sum(axis=0)))
            if "timestamp" in part:
                since = part["timestamp"] - part["timestamp"].astype("datetime64[D]")
                hours += np.bincount(since // np.timedelta64(1, "h"), minlength=24)
                stamps = [min([*stamps, part["timestamp"].min()]), max([*stamps, part["timestamp"].max()])]
            policies += np.bincount(np.clip(part.get("policy_index", np.zeros(0, np.int64)), 0, 255), minlength=256)
            inferred += int(part.get("actions_inferred", np.zeros(0)).sum())
    num = dataset.num_transitions
    mean = sums[0] / num
    return Coverage(
        action_names=card.action_names,
        actions=actions,
        action_mean=mean,
        action_std=np.sqrt(np.maximum(sums[1] / num - np.square(mean), 0.0)),
        voltage_names=tuple(card.observation_names[i] for i in voltage),
        voltages=voltages,
        below=beyond[0] / num,
        above=beyond[1] / num,
        hours=hours,
        policies={int(index): int(policies[index]) for index in np.flatnonzero(policies)},
        first=str(stamps[0]) if stamps else None,
        last=str(stamps[1]) if stamps else None,
        inferred_share=inferred / num,
    )


def _batches(file: Path) -> Iterator[dict[str, NDArray[Any]]]:
    wanted = ["obs", "actions", "timestamp", "policy_index", "actions_inferred"]
    with pq.ParquetFile(file) as parquet:
        names = [name for name in wanted if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(MAX_ROWS, columns=names):
            yield to_arrays(pa.Table.from_batches([batch]))


def _action_range(card: DatasetCard) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of each action as it is stored: -1 and 1, or the levels' range."""
    low, high = -np.ones(len(card.action_names)), np.ones(len(card.action_names))
    for index, channel in enumerate(card.action_channels):
        if channel.kind == "level":
            low[index], high[index] = channel.low, channel.high
    return low, high


def _count(counts: NDArray[np.int64], values: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    """Add a histogram of each column; what is beyond the edges goes to the first and last bin."""
    num_bins = len(edges) - 1
    place = np.clip(((values - edges[0]) / (edges[-1] - edges[0]) * num_bins).astype(np.int64), 0, num_bins - 1)
    flat = place + num_bins * np.arange(values.shape[1])
    counts += np.bincount(flat.ravel(), minlength=counts.size).reshape(counts.shape)
