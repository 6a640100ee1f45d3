"""The card of an offline dataset: what it holds, where it comes from, and the digest of every file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gridray.config import parse_config
from gridray.errors import ConfigError, DatasetError
from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gridray.tasks.base import Task

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
COST_QUANTILES = ("0.05", "0.5", "0.95")
VERSIONED = ("gridray", "numpy", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Where transitions come from.

    feeder_hash: SHA-256 of the feeder's content; policy: name of the policy that acted; recording: how it was driven;
    licence: what others may do with it, best an SPDX identifier; observation_channels, action_channels: units and
    scales, so that (obs / scale + offset) is physical and an action of -1 to 1 spans low to high; empty if not known.
    """

    feeder: str
    feeder_hash: str
    task: str
    task_config: dict[str, Any]
    policy: str
    seed: int
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    licence: str = "not stated"
    observation_channels: tuple[ObservationChannel, ...] = ()
    action_channels: tuple[ActionChannel, ...] = ()
    recording: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file; `file` is its path in the folder `shards`, with "/" between folders."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Distribution of a total over episodes, such as the undiscounted return; quantiles by level, such as "0.5"."""

    mean: float
    std: float
    min: float
    max: float
    quantiles: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DatasetCard(DatasetSource):
    """Everything about a dataset but its rows; returns and named costs are totals of an episode."""

    format: Literal["gridray-dataset"] = "gridray-dataset"
    format_version: Literal[1] = 1
    versions: dict[str, str]
    num_transitions: int
    num_episodes: int
    returns: Statistics
    costs: dict[str, Statistics]
    shards: tuple[Shard, ...]

    def to_json(self) -> str:
        """Return the card as a JSON document."""
        content = asdict(self)
        for name in ("observation_channels", "action_channels"):
            content[name] = [channel._asdict() for channel in content[name]]
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Return the card for people."""
        rows = "".join(f"| {name} | {value} |\n" for name, value in self.summary())
        costs = "".join("| " + " | ".join(row) + " |\n" for row in self.cost_table())
        config = json.dumps(self.task_config, indent=2)
        return (
            f"# Offline dataset: {self.task} on {self.feeder}, policy {self.policy}\n\n| | |\n| --- | --- |\n{rows}\n"
            f"## Costs, totals of an episode\n\n| cost | mean | deviation | 5 % | median | 95 % | most |\n"
            f"| --- | --- | --- | --- | --- | --- | --- |\n{costs}\n"
            f"## Task configuration\n\n```json\n{config}\n```\n\n"
            f"## Recording\n\n```json\n{json.dumps(self.recording, indent=2)}\n```\n\n"
            "One Parquet row per transition in `shards/`, columns named as RLlib names them; `card.json` has every "
            "file's digest and the names of observations and actions.\n"
        )

    def summary(self) -> list[tuple[str, str]]:
        """Return names and values of the main facts."""
        levels = ", ".join(f"{level}: {value:.4g}" for level, value in self.returns.quantiles.items())
        return [
            ("transitions", str(self.num_transitions)),
            ("episodes", str(self.num_episodes)),
            ("return, mean and standard deviation", f"{self.returns.mean:.6g}, {self.returns.std:.4g}"),
            ("return, quantiles", levels),
            ("observations, actions", f"{len(self.observation_names)}, {len(self.action_names)}"),
            ("shards", f"{len(self.shards)}, {sum(shard.bytes for shard in self.shards)} bytes"),
            ("feeder SHA-256", self.feeder_hash),
            ("licence", self.licence),
            ("seed", str(self.seed)),
            ("versions", ", ".join(f"{name} {value}" for name, value in self.versions.items())),
        ]

    def cost_table(self) -> list[tuple[str, ...]]:
        """Return name, mean, standard deviation, quantiles 0.05, 0.5, 0.95 and maximum of each cost."""
        return [
            (name, *(f"{value:.6g}" for value in (c.mean, c.std, *(c.quantiles[q] for q in COST_QUANTILES), c.max)))
            for name, c in self.costs.items()
        ]


def task_source(
    task: Task, *, policy: str, seed: int, licence: str, recording: dict[str, Any] | None = None
) -> DatasetSource:
    """Return the source of transitions that a policy makes on this task."""
    return DatasetSource(
        feeder=task.feeder.name,
        feeder_hash=task.feeder.content_hash(),
        task=task.name,
        task_config=task.config_dict(),
        policy=policy,
        seed=seed,
        observation_names=tuple(channel.name for channel in task.observation_channels),
        action_names=tuple(channel.name for channel in task.action_channels),
        licence=licence,
        observation_channels=task.observation_channels,
        action_channels=task.action_channels,
        recording=recording or {},
    )


def make_card(
    source: DatasetSource, shards: Sequence[Shard], returns: Sequence[float], costs: Mapping[str, Sequence[float]]
) -> DatasetCard:
    """Summarise shards; returns and costs are totals of each episode."""
    return DatasetCard(
        **{name: getattr(source, name) for name in DatasetSource.__dataclass_fields__},
        versions={"python": ".".join(map(str, sys.version_info[:3])), **{name: version(name) for name in VERSIONED}},
        num_transitions=sum(shard.rows for shard in shards),
        num_episodes=len(returns),
        returns=_statistics(returns),
        costs={name: _statistics(values) for name, values in costs.items()},
        shards=tuple(shards),
    )


def read_card(path: Path) -> DatasetCard:
    """Read a card from its JSON file.

    Raises:
        DatasetError: the file is missing, or is no card of a known version.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return parse_config(DatasetCard, data, where=str(path))
    except OSError as error:
        raise DatasetError(
            f"'{path}' cannot be read ({error.strerror}): give the directory of a dataset made by `gridray record`."
        ) from error
    except (ValueError, ConfigError) as error:
        raise DatasetError(f"'{path}' is no card of a dataset ({error}): record the dataset again.") from error


def _statistics(values: Sequence[float]) -> Statistics:
    totals = np.asarray(values, dtype=np.float64)
    return Statistics(
        mean=float(totals.mean()),
        std=float(totals.std()),
        min=float(totals.min()),
        max=float(totals.max()),
        quantiles={
            str(level): float(value) for level, value in zip(QUANTILES, np.quantile(totals, QUANTILES), strict=True)
        },
    )
