"""Small federations under protection: made-up days of four utilities, cloned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.datasets.card import task_source
from gridray.datasets.dataset import write_dataset
from gridray.federated.config import ClientConfig, FederateConfig
from gridray.federated.federate import federate
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


NAMES = ("east", "north", "south", "west")
TASK = {"feeder": "ieee13", "num_days": 5}


def write_days(folder: Path) -> dict[str, Path]:
    """Write made-up transitions of four utilities on one feeder, of different size, twelve days each."""
    source = task_source(make_task("volt_var", TASK), policy="made up", seed=0, licence="CC0-1.0")
    sizes = len(source.observation_names), len(source.action_names)
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        days = [made_up(rng, day, 8 + seed, *sizes) for day in range(12)]
        whole = {column: np.concatenate([day[column] for day in days]) for column in days[0]}
        write_dataset(folder / name, [whole], source)
    return {name: folder / name for name in NAMES}


def made_up(rng: np.random.Generator, day: int, num_rows: int, *sizes: int) -> dict[str, NDArray[Any]]:
    """Return a day of transitions."""
    obs = rng.normal(loc=rng.normal(), size=(num_rows + 1, sizes[0])).astype(np.float32)
    return {
        "eps_id": np.full(num_rows, f"day{day}"),
        "t": np.arange(num_rows, dtype=np.int32),
        "obs": obs[:-1],
        "actions": rng.uniform(-1, 1, size=(num_rows, sizes[1])).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "new_obs": obs[1:],
        "terminateds": np.zeros(num_rows, dtype=bool),
        "truncateds": np.arange(num_rows) == num_rows - 1,
    }


def small_config(datasets: dict[str, Path]) -> FederateConfig:
    """Return a federation of the four."""
    return FederateConfig(
        algorithm="bc",
        clients=tuple(ClientConfig(name=name, dataset=datasets[name]) for name in NAMES),
        rounds=3,
        local_updates=4,
        batch_size=16,
        learner={"hidden_sizes": [8, 8], "learning_rate": 0.01},
    )


def weights_of(config: FederateConfig, out: Path) -> dict[str, NDArray[Any]]:
    """Return the weights after the last round."""
    return federate(config, out, use_ray=False).weights


def assert_close(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]], tolerance: float) -> None:
    """Compare all weights."""
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=tolerance, rtol=0, err_msg=name)
