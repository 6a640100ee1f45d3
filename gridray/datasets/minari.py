"""Exchange with Minari (Farama Foundation): our datasets as its, its as ours; on this machine only."""

from __future__ import annotations

import json
import shutil
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import minari
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from gridray.config import parse_config
from gridray.datasets.card import DatasetSource
from gridray.datasets.dataset import OfflineDataset, read_shard, write_dataset
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from minari.dataset.minari_dataset import EpisodeData
    from numpy.typing import NDArray

INFOS = ("timestamp", "action_logp", "policy_index", "actions_inferred")
DATA = "data"
"""Folder in which Minari keeps a dataset's files."""
NO_FEEDER = "none"
EPISODES_AT_ONCE = 256


def export_minari(dataset: OfflineDataset, path: Path, dataset_id: str) -> MinariDataset:
    """Write a dataset as a Minari dataset in Arrow files; Minari finds it by id in its own folder.

    Costs, timestamps and log-probabilities become infos, of which the first is the reset's and zero; the card is in the
    metadata as JSON. An episode with steps left out becomes several, each truncated where it was cut.

    Args:
        dataset: What to write.
        path: Directory to be made, such as `<Minari's folder>/gridray/north-v0`.
        dataset_id: Minari's name, such as "gridray/north-v0".

    Raises:
        DatasetError: there is something at `path`.
    """
    if path.exists():
        raise DatasetError(f"'{path}' exists: remove it or give another directory for the Minari dataset.")
    path = path.absolute()  # Minari joins the names of its files to the folder, which they already have.
    aside = path.with_name(f".partial-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    card = dataset.card
    storage = MinariStorage.new(
        aside / DATA,
        observation_space=Box(-np.inf, np.inf, (len(card.observation_names),), np.float32),
        action_space=_action_space(dataset),
        data_format="arrow",
    )
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            "algorithm_name": card.policy,
            "description": f"{card.task} on {card.feeder}, licence: {card.licence}",
            "gridray_card": card.to_json(),
        }
    )
    for file in dataset.files:
        storage.update_episodes(list(_buffers(read_shard(file), storage.total_episodes)))
    aside.rename(path)
    return MinariDataset(path / DATA)


def import_minari(path: Path, out: Path) -> OfflineDataset:
    """Write a local Minari dataset as one of ours; one that `export_minari` made gets its card's facts back.

    Observations of a Box are flattened; actions of a bounded Box are scaled to [-1, 1], of Discrete and MultiDiscrete
    kept as levels. No environment is made: a dataset's specification could name any code.

    Raises:
        DatasetError: there is no Minari dataset, its spaces are others, or something is at `out`.
    """
    path = path / DATA if (path / DATA).is_dir() else path
    try:
        metadata = MinariStorage.read_raw_metadata(path)
    except ValueError as error:
        raise DatasetError(
            f"'{path}' is no Minari dataset ({error}): give the directory that has metadata.json."
        ) from error
    if missing := [name for name in ("observation_space", "action_space") if name not in metadata]:
        raise DatasetError(
            f"'{path}' has no {missing[0]}: Minari would have to build its environment; store the spaces with it."
        )
    storage = MinariStorage.read(path)
    low, high = _action_range(storage.action_space, path)
    if not isinstance(storage.observation_space, Box):
        raise DatasetError(f"'{path}' has observations of {storage.observation_space}: give a Box.")
    source = _source(storage, metadata, path, len(low))
    return write_dataset(out, _parts(MinariDataset(storage), low, high, source), source)


def _buffers(rows: dict[str, NDArray[Any]], first_id: int) -> Iterator[EpisodeBuffer]:
    order = np.lexsort((rows["t"], rows["eps_id"]))
    rows = {name: values[order] for name, values in rows.items()}
    is_new = np.append(True, (rows["eps_id"][1:] != rows["eps_id"][:-1]) | (np.diff(rows["t"]) != 1))
    starts = np.append(np.flatnonzero(is_new), len(is_new))
    names = [name for name in rows if name.startswith("cost_") or name in INFOS]
    for index, (start, end) in enumerate(pairwise(starts.tolist())):
        part = {name: values[start:end] for name, values in rows.items()}
        truncations = part["truncateds"].copy()
        truncations[-1] |= not part["terminateds"][-1]
        yield EpisodeBuffer(
            id=first_id + index,
            observations=np.concatenate((part["obs"], part["new_obs"][-1:])),
            actions=part["actions"],
            rewards=part["rewards"],
            terminations=part["terminateds"],
            truncations=truncations,
            # As lists: Minari 0.5.4 writes arrays of one dimension in a way that it cannot read.
            infos={name: _info(part[name]).tolist() for name in names},
        )


def _info(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "M":
        values = values.astype("datetime64[ms]").astype(np.int64)
    return np.concatenate((np.zeros_like(values[:1]), values))


def _parts(
    dataset: MinariDataset, low: NDArray[np.float64], high: NDArray[np.float64], source: DatasetSource
) -> Iterator[dict[str, NDArray[Any]]]:
    episodes = dataset.iterate_episodes()
    while chunk := list(islice(episodes, EPISODES_AT_ONCE)):
        rows = [_rows(episode, low, high, source) for episode in chunk]
        yield {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}


def _rows(
    episode: EpisodeData, low: NDArray[np.float64], high: NDArray[np.float64], source: DatasetSource
) -> dict[str, NDArray[Any]]:
    num = len(episode.rewards)
    observations = np.asarray(episode.observations).reshape(num + 1, -1)
    actions = np.asarray(episode.actions, dtype=np.float64).reshape(num, -1)
    scaled = 2.0 * (actions - low) / (high - low) - 1.0
    columns = {
        "eps_id": np.full(num, f"minari-{episode.id:08d}"),
        "t": np.arange(num),
        "obs": observations[:-1],
        "actions": scaled,
        "rewards": np.asarray(episode.rewards),
        "new_obs": observations[1:],
        "terminateds": np.asarray(episode.terminations, dtype=np.bool_),
        "truncateds": np.asarray(episode.truncations, dtype=np.bool_),
    }
    if source.task != "minari":
        infos = {name: np.asarray(values)[1:] for name, values in episode.infos.items()}
        if "timestamp" in infos:
            infos["timestamp"] = infos["timestamp"].astype("datetime64[ms]")
        columns |= infos
    return columns


def _source(storage: MinariStorage, metadata: dict[str, Any], path: Path, num_actions: int) -> DatasetSource:
    if "gridray_card" in metadata:
        card = json.loads(metadata["gridray_card"])
        known = {name: card[name] for name in DatasetSource.__dataclass_fields__ if name in card}
        return parse_config(DatasetSource, known, where=f"'{path}'")
    size = int(np.prod(storage.observation_space.shape or (1,)))
    return DatasetSource(
        feeder=NO_FEEDER,
        feeder_hash=NO_FEEDER,
        task="minari",
        task_config={"dataset_id": metadata.get("dataset_id", path.name)},
        policy=str(metadata.get("algorithm_name") or "not stated"),
        seed=0,
        observation_names=tuple(f"observation.{index}" for index in range(size)),
        action_names=tuple(f"action.{index}" for index in range(num_actions)),
    )


def _action_space(dataset: OfflineDataset) -> Space[Any]:
    channels = dataset.card.action_channels
    if channels and all(channel.kind == "level" for channel in channels):
        low = np.array([channel.low for channel in channels], dtype=np.int64)
        high = np.array([channel.high for channel in channels], dtype=np.int64)
        return MultiDiscrete(high - low + 1, start=low)
    return Box(-1.0, 1.0, (len(dataset.card.action_names),), np.float32)


def _action_range(space: Space[Any], path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what becomes -1 and 1: the ends of a bounded box; levels stay what they are."""
    if isinstance(space, Box) and space.is_bounded():
        return space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    if isinstance(space, (Discrete, MultiDiscrete)):
        num = 1 if isinstance(space, Discrete) else len(space.nvec)
        return -np.ones(num), np.ones(num)
    raise DatasetError(f"'{path}' has actions of {space}: give a bounded Box, Discrete or MultiDiscrete.")
