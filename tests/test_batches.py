"""Where batches come from: rows and the actions that follow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from transitions import transitions

from gridray.algorithms.batches import (
    InMemoryBatches,
    StreamedBatches,
    dataset_normaliser,
    load_columns,
    normaliser_of_rows,
    with_next_actions,
)
from gridray.algorithms.train import TrainConfig, train
from gridray.datasets.record import RecordConfig, record
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.datasets.dataset import OfflineDataset

COST = "cost_losses_kwh"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    """Six days of 24 steps, in two shards."""
    config = RecordConfig(
        task_config={"step_minutes": 60, "num_days": 10}, num_episodes=6, noise_std=0.3, rows_per_shard=72
    )
    return record(config, tmp_path_factory.mktemp("data") / "north", use_ray=False)


def test_batch_is_rows_of_the_columns() -> None:
    columns = transitions(50)
    batch = InMemoryBatches(columns, batch_size=20, seed=0, device="cpu").draw()
    assert batch.keys() == columns.keys()
    rows = [int(np.flatnonzero((columns["obs"] == row).all(axis=1))[0]) for row in batch["obs"].numpy()]
    for name, column in columns.items():
        np.testing.assert_array_equal(batch[name].numpy(), column[rows].astype(np.float32))


def test_next_action_is_of_the_next_step_of_the_same_episode() -> None:
    rows = transitions(6)
    rows["t"] = np.array([0, 1, 2, 0, 1, 3])
    rows["new_obs"][:-1] = rows["obs"][1:]
    # The second episode begins where the first ended, and its last row came after a step that was left out.
    columns = with_next_actions(rows)
    np.testing.assert_array_equal(columns["has_new_actions"], [1, 1, 0, 1, 0, 0])
    for row in (0, 1, 3):
        np.testing.assert_array_equal(columns["new_actions"][row], rows["actions"][row + 1])
    for row in (2, 4, 5):
        np.testing.assert_array_equal(columns["new_actions"][row], rows["actions"][row])
    rows["new_obs"][0] += 1.0
    assert with_next_actions(rows)["has_new_actions"][0] == 0.0


def test_recorded_days_go_on_but_for_their_last_step(dataset: OfflineDataset) -> None:
    columns = load_columns(dataset, ("obs", "new_actions", "has_new_actions"))
    assert list(columns) == ["obs", "new_actions", "has_new_actions"]
    np.testing.assert_array_equal(columns["has_new_actions"].reshape(6, 24)[:, :-1], 1.0)
    np.testing.assert_array_equal(columns["has_new_actions"].reshape(6, 24)[:, -1], 0.0)
    with pytest.raises(DatasetError, match="no column 'cost_frogs'"):
        load_columns(dataset, ("obs", "cost_frogs"))


@pytest.mark.usefixtures("ray_local")
def test_stream_has_the_same_rows_as_memory(dataset: OfflineDataset) -> None:
    names = ("obs", "actions", "new_actions", "has_new_actions", COST)
    whole = load_columns(dataset, names)
    batch = StreamedBatches(dataset, names, batch_size=144, seed=0, device="cpu").draw()
    assert set(batch) == set(names)
    # Two episodes of one day begin alike: only with its action is a row known.
    keys = np.hstack((whole["obs"], whole["actions"]))
    drawn = np.hstack((batch["obs"].numpy(), batch["actions"].numpy()))
    order = [int(np.flatnonzero((keys == row).all(axis=1))[0]) for row in drawn]
    assert sorted(order) == list(range(144))
    for name in names:
        np.testing.assert_array_equal(batch[name].numpy(), whole[name][order])
    again = StreamedBatches(dataset, names, batch_size=144, seed=0, device="cpu").draw()
    np.testing.assert_array_equal(again["obs"].numpy(), batch["obs"].numpy())
    normaliser = dataset_normaliser(dataset, stream=False, cost_column=COST)
    assert normaliser.cost_std == pytest.approx(whole[COST].std(), rel=1e-5)
    with pytest.raises(DatasetError, match="no column 'cost_frogs'"):
        StreamedBatches(dataset, ("cost_frogs",), batch_size=8, seed=0, device="cpu")


def test_cost_that_is_not_finite_is_named() -> None:
    rows = transitions(8)
    rows["cost_voltage_violation_pu"][3] = np.inf
    with pytest.raises(DatasetError, match="column cost_voltage_violation_pu has NaN or infinite"):
        normaliser_of_rows([rows], "cost_voltage_violation_pu")


@pytest.mark.parametrize("algorithm", ["rebrac", "iql_lagrange"])
def test_training_loads_what_the_algorithm_reads(algorithm: str, dataset: OfflineDataset, tmp_path: Path) -> None:
    learner = {"hidden_sizes": [8]} | ({"cost": "losses_kwh", "budget": 1.0} if algorithm == "iql_lagrange" else {})
    config = TrainConfig(
        dataset=dataset.path, algorithm=algorithm, num_updates=5, batch_size=8, learner=learner, report_every=5
    )
    metrics = train(config, tmp_path / "run").history[-1].metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert "actor_loss" in metrics
