"""Import a utility's own SCADA and AMI exports as an offline dataset, with a report of what became of every sample."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from gridray.config import load_config
from gridray.datasets.card import task_source
from gridray.datasets.dataset import OfflineDataset, write_dataset
from gridray.datasets.inferred_actions import actions_of
from gridray.datasets.intervals import Intervals, to_intervals
from gridray.datasets.mapping import Mapping, Points
from gridray.datasets.partial import file_sha256, write_file
from gridray.datasets.plan import day_folder
from gridray.datasets.replay import missing_for_replay, replay_points, score, twin_state, voltage_errors
from gridray.datasets.samples import read_samples
from gridray.datasets.schema import COST_PREFIX, TIMESTAMP
from gridray.errors import DatasetError
from gridray.tasks.base import scaled_observations
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.tasks.base import Task

MEASUREMENTS = "measurements.parquet"
REPORT = "import.json"
HISTORIAN = "historian"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of an export.

    samples: point -> number of samples by what became of them ("used", "used: <what was repaired>", or the reason why
    not); filled: point -> intervals filled; intervals: number by what became of them; actions: action -> "logged",
    "inferred" or "unknown"; observations: channel -> "measured", "constant", "estimated" or "clock"; voltage_error:
    model minus meter by bus and phase, pu, or empty where loads are not known.
    """

    samples: dict[str, dict[str, int]]
    filled: dict[str, int]
    intervals: dict[str, int]
    actions: dict[str, str]
    observations: dict[str, str]
    rewards: str
    voltage_error: list[dict[str, Any]]
    sources: dict[str, str]


def import_historian(mapping_file: Path, out: Path) -> tuple[OfflineDataset, ImportReport]:
    """Import the exports that a mapping file names as the dataset `out`.

    An episode is a run of intervals without a gap within a local day. Beside the shards lie the report (`import.json`)
    and the points at equal intervals in their own units (`measurements.parquet`, NaN where there is no value), without
    those that the twin estimated.

    Raises:
        ConfigError: the mapping is wrong.
        DatasetError: a file cannot be read, an observation has no source, or no interval is complete.
    """
    mapping = load_config(Mapping, mapping_file)
    task = make_task(mapping.task, mapping.task_config | {"utility": mapping.utility})
    points = Points(mapping, task)
    samples = read_samples(mapping, mapping_file, points)
    measured = to_intervals(samples, mapping, 24 * 60 / task.num_steps)
    local = _local_times(measured, mapping)
    values, origin = _complete(measured, mapping, points, task, local)
    rows = _Rows(task, measured, values, local)
    report = ImportReport(
        samples=_counts(samples),
        filled=measured.num_filled,
        intervals=rows.counts,
        actions=rows.action_origin,
        observations={channel.name: origin.get(channel.name, "clock") for channel in task.observation_channels},
        rewards=rows.reward_origin,
        voltage_error=[error._asdict() for error in rows.voltage_errors],
        sources={source.path: file_sha256(mapping_file.parent / source.path) for source in mapping.files},
    )
    source = task_source(
        task,
        policy=HISTORIAN,
        seed=0,
        licence=mapping.licence,
        recording={"mapping": json.loads(json.dumps(asdict(mapping), default=str)), "actions": rows.action_origin},
    )
    source = replace(source, recording=_finite(source.recording))
    dataset = write_dataset(out, rows.parts(), source, rows.names(mapping.utility))
    # What the twin estimated is no measurement: calibrating to it would only confirm the model.
    known = {name: pa.array(row) for name, row in values.items() if origin.get(name) in {"measured", "constant"}}
    pq.write_table(pa.table({"timestamp": pa.array(measured.times, TIMESTAMP)} | known), out / MEASUREMENTS)
    write_file(out / REPORT, json.dumps(asdict(report), indent=2, allow_nan=False) + "\n")
    return dataset, report


def read_measurements(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the points of an imported dataset, float64 [num_intervals] by name.

    Raises:
        DatasetError: the dataset was not imported.
    """
    file = path / MEASUREMENTS
    if not file.is_file():
        raise DatasetError(f"'{file}' is missing: give a dataset made by `gridray dataset import`.")
    table = pq.read_table(file)
    return {name: table.column(name).to_numpy() for name in table.column_names if name != "timestamp"}


class _Rows:
    """Transitions between intervals that follow each other, each with all observations, actions and a reward."""

    def __init__(
        self,
        task: Task,
        measured: Intervals,
        values: dict[str, NDArray[np.float64]],
        local: NDArray[np.datetime64],
    ) -> None:
        self._task, self._times = task, measured.times
        physical = np.stack([values[channel.name] for channel in task.observation_channels], axis=1)
        self._observations = scaled_observations(task.observation_channels, physical)
        actions, self._is_inferred, self.action_origin = actions_of(task, values)
        self._actions = actions
        self.voltage_errors, rewards, costs, self.reward_origin = _scores(task, measured, values)
        self._rewards, self._costs = rewards, costs
        has_observation = _has_all(physical)
        has_action, has_reward = _has_all(actions), ~np.isnan(rewards)
        self._is_row: NDArray[np.bool_] = has_observation[:-1] & has_observation[1:] & has_action & has_reward
        for cost in costs.values():
            self._is_row &= ~np.isnan(cost)
        self.counts = {
            "intervals": len(measured.times),
            "without all observations": int((~has_observation).sum()),
            "transitions": int(self._is_row.sum()),
            "transitions left out: an observation is missing": int(
                (~(has_observation[:-1] & has_observation[1:])).sum()
            ),
            "transitions left out: an action is unknown": int(
                (has_observation[:-1] & has_observation[1:] & ~has_action).sum()
            ),
        }
        if not self._is_row.any():
            sparse = {name: int(np.isnan(v).sum()) for name, v in values.items() if np.isnan(v).any()}
            worst = sorted(sparse, key=sparse.__getitem__, reverse=True)[:3]
            raise DatasetError(
                f"No two intervals in a row have all values; most are missing of {', '.join(worst)}: "
                "allow repairs, or map fewer points."
            )
        rows = np.flatnonzero(self._is_row)
        day = local[rows].astype("datetime64[D]")
        is_new = np.diff(rows, prepend=-2) != 1
        is_new[1:] |= day[1:] != day[:-1]
        self._episode = np.cumsum(is_new) - 1
        self._rows, self._days = rows, day
        self._starts = np.flatnonzero(is_new)

    def names(self, utility: str) -> Iterator[str]:
        """Return the shards' paths, one a local day."""
        return (f"{day_folder(utility, day)}/shard-000000.parquet" for day in np.unique(self._days))

    def parts(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Return the columns of each local day."""
        for day in np.unique(self._days):
            yield self._part(np.flatnonzero(self._days == day))

    def _part(self, places: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        rows, episode = self._rows[places], self._episode[places]
        ends = np.append(episode[1:] != episode[:-1], True)
        start = np.datetime_as_string(self._times[self._rows[self._starts[episode]]], unit="m")
        columns = {
            "eps_id": np.array([f"{HISTORIAN}-{name}" for name in start]),
            "t": places - self._starts[episode],
            "obs": self._observations[rows],
            "actions": self._actions[rows],
            "rewards": self._rewards[rows],
            "new_obs": self._observations[rows + 1],
            "terminateds": np.zeros(len(rows), dtype=np.bool_),
            "truncateds": ends,
            "timestamp": self._times[rows],
            "actions_inferred": np.full(len(rows), self._is_inferred),
        }
        return columns | {f"{COST_PREFIX}{name}": cost[rows] for name, cost in self._costs.items()}


def _scores(
    task: Task, measured: Intervals, values: dict[str, NDArray[np.float64]]
) -> tuple[list[Any], NDArray[np.float64], dict[str, NDArray[np.float64]], str]:
    """Return voltage errors, reward and costs [E - 1] (NaN where not known) and where the reward comes from."""
    num = len(measured.times)
    seen = {name: row for name, row in measured.values.items() if name.startswith("vmag_pu.")}
    logged = {name: values[f"cost.{name}"][:-1] for name in task.cost_names if f"cost.{name}" in values}
    if missing := missing_for_replay(task.feeder, task.grid, values):
        if "reward" not in values:
            raise DatasetError(
                f"There is no reward: map 'reward', or what a replay needs and the mapping lacks: {', '.join(missing)}."
            )
        return [], values["reward"][:-1], logged, "logged"
    state = twin_state(task, {name: np.nan_to_num(row) for name, row in values.items()})
    is_whole = _is_whole(task, values) & state.grid.converged
    model = np.where(is_whole, state.vmag_pu, np.nan)
    errors = voltage_errors(task.grid, model[:, is_whole], {name: row[is_whole] for name, row in seen.items()})
    if "reward" in values:
        return errors, values["reward"][:-1], logged, "logged"
    scored = score(task, state, seen, values)
    unknown = ~(is_whole[1:] & is_whole[: num - 1])
    rewards = np.where(unknown, np.nan, scored.rewards)
    costs = {name: np.where(unknown, np.nan, cost) for name, cost in scored.costs.items()}
    return errors, rewards, costs | logged, "score of the twin's replay, meters' voltages where there are any"


def _complete(
    measured: Intervals, mapping: Mapping, points: Points, task: Task, local: NDArray[np.datetime64]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """Return values of all observations and what is known besides, and where each came from."""
    num = len(measured.times)
    values, origin = dict(measured.values), dict.fromkeys(measured.values, "measured")
    for name in points.names:
        patterns = [pattern for pattern in mapping.constants if fnmatchcase(name, pattern)]
        if name not in values and patterns:
            values[name], origin[name] = np.full(num, mapping.constants[patterns[0]]), "constant"
    share = (local - local.astype("datetime64[D]")) / np.timedelta64(1, "D")
    clock = {"time.sin_day": np.sin(2.0 * np.pi * share), "time.cos_day": np.cos(2.0 * np.pi * share)}
    names = [channel.name for channel in task.observation_channels]
    values |= {name: row for name, row in clock.items() if name in names and name not in values}
    wanted = [n for n in names if n not in values and any(fnmatchcase(n, pattern) for pattern in mapping.estimate)]
    if wanted:
        known = {name: np.nan_to_num(row) for name, row in values.items()}
        state = twin_state(task, known)
        is_whole = _is_whole(task, values) & state.grid.converged
        seen = dict(zip(names, task.twin.observe(state), strict=True))  # type: ignore[attr-defined]
        values |= {name: np.where(is_whole, seen[name], np.nan) for name in wanted}
        origin |= dict.fromkeys(wanted, "estimated")
    if missing := [name for name in names if name not in values]:
        raise DatasetError(
            f"{len(missing)} observations have no source, such as {', '.join(missing[:4])}: "
            "map them, give constants, let the twin estimate them, or take a task that does not observe them."
        )
    return values, origin


def _has_all(rows: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which rows have no NaN."""
    return np.logical_not(np.asarray(np.isnan(rows).any(axis=1), dtype=np.bool_))


def _is_whole(task: Task, values: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Tell at which moments all that a replay reads is known."""
    rows = np.stack([values[name] for name in replay_points(task.feeder, task.grid)], axis=1)
    return _has_all(rows)


def _local_times(measured: Intervals, mapping: Mapping) -> NDArray[np.datetime64]:
    """Return the beginning of each interval in the first file's zone, datetime64[ms] [E]."""
    zone = next((source.time_zone for source in mapping.files if source.time_zone), "UTC")
    stamps = pl.Series(measured.times).dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    local: NDArray[np.datetime64] = stamps.dt.replace_time_zone(None).to_numpy().astype("datetime64[ms]")
    return local


def _counts(samples: pl.DataFrame) -> dict[str, dict[str, int]]:
    label = pl.coalesce(pl.col("reason"), pl.lit("used: ") + pl.col("note"), pl.lit("used"))
    table = samples.group_by("channel", label.alias("what")).len().sort("channel", "what")
    counts: dict[str, dict[str, int]] = {}
    for channel, what, number in table.iter_rows():
        counts.setdefault(channel, {})[what] = number
    return counts


def _finite(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Write infinite limits as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
