"""Small federations for tests: made-up transitions of utilities on one feeder."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.exceptions import RayActorError

from gridray.datasets.card import DatasetSource, task_source
from gridray.datasets.dataset import write_dataset
from gridray.federated.config import ClientConfig, FederateConfig
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

NAMES = ("east", "north", "south")
LEARNER = {"hidden_sizes": [8, 8]}
TASK = {"feeder": "ieee13", "num_days": 5}


def write_datasets(folder: Path) -> dict[str, Path]:
    """Write the datasets of three utilities, of different size and mean."""
    source = task_source(make_task("volt_var", TASK), policy="made up", seed=0, licence="CC0-1.0")
    for seed, name in enumerate(NAMES):
        parts = [made_up(source, np.random.default_rng([seed, part]), num_rows=40 + 10 * seed) for part in range(2)]
        write_dataset(folder / name, parts, source)
    return {name: folder / name for name in NAMES}


def made_up(source: DatasetSource, rng: np.random.Generator, num_rows: int) -> dict[str, NDArray[Any]]:
    """Return one episode."""
    obs = rng.normal(loc=rng.normal(), size=(num_rows + 1, len(source.observation_names))).astype(np.float32)
    actions = rng.uniform(-1, 1, size=(num_rows, len(source.action_names))).astype(np.float32)
    return {
        "eps_id": np.full(num_rows, f"episode{rng.integers(10**9)}"),
        "t": np.arange(num_rows, dtype=np.int32),
        "obs": obs[:-1],
        "actions": actions,
        "rewards": (obs[1:, 0] - actions[:, 0] ** 2).astype(np.float32),
        "new_obs": obs[1:],
        "terminateds": np.zeros(num_rows, dtype=bool),
        "truncateds": np.arange(num_rows) == num_rows - 1,
        "cost_voltage_violation_pu": rng.uniform(size=num_rows).astype(np.float32),
    }


def small_config(datasets: dict[str, Path], **changes: Any) -> FederateConfig:
    """Return three utilities that train IQL for three rounds."""
    clients = tuple(ClientConfig(name=name, dataset=datasets[name]) for name in NAMES)
    settings: dict[str, Any] = {"algorithm": "iql", "rounds": 3, "local_updates": 3, "batch_size": 16, "seed": 7}
    return FederateConfig(**(settings | {"clients": clients, "learner": LEARNER} | changes))


def two_of(config: FederateConfig, **changes: Any) -> FederateConfig:
    """Return the federation of north and south alone."""
    return replace(config, clients=config.clients[1:], **changes)


def waits_for(gate: Path) -> Callable[[object], None]:
    """Return a call that keeps an actor busy until the gate is there."""

    def wait(_: object) -> None:
        while not gate.exists():
            time.sleep(0.05)

    return wait


@contextmanager
def hold(client: Any, gate: Path, strike: Callable[[], object]) -> Iterator[None]:  # noqa: ANN401
    """Let the block's round wait for a client, strike while it waits, and let it go on."""

    def strike_then_open() -> None:
        try:
            strike()
        finally:
            gate.touch()

    client.__ray_call__.remote(waits_for(gate))
    timer = threading.Timer(1.0, strike_then_open)
    timer.start()
    yield
    timer.join()


def wait_until(is_so: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait, and fail if it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def process_of(actor: Any) -> int | None:  # noqa: ANN401
    """Return the process of an actor; none while it is being started again."""
    try:
        pid: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=30.0)
    except RayActorError:
        return None
    return pid
