"""RLlib's learners behind our protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from transitions import learner_of, transitions

from gridray.algorithms.base import normaliser_of
from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.registry import RLLIB_LEARNERS
from gridray.algorithms.train import TrainConfig, train
from gridray.datasets.record import RecordConfig, record
from gridray.errors import ConfigError, GridRayError
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.datasets.dataset import OfflineDataset

# RLlib's own use of what torch, gymnasium and Ray have deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning", "ignore::RuntimeWarning"
)


def assert_same(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("name", RLLIB_LEARNERS)
def test_rllib_learner_continues_bit_for_bit(name: str) -> None:
    whole, stopped = learner_of(name, seed=1), learner_of(name, seed=1)
    whole.set_normaliser(normaliser_of(np.full(3, 0.5), np.full(3, 2.0), -1.0, 3.0))
    stopped.set_weights(whole.get_weights())
    assert_same(stopped.get_weights(), whole.get_weights())
    for step in range(2):
        assert whole.update(transitions(32, seed=step)) == stopped.update(transitions(32, seed=step))
    resumed = learner_of(name, seed=9)
    resumed.set_training_state(stopped.get_training_state())
    resumed.set_weights(stopped.get_weights())
    before = whole.get_weights()
    for step in range(2, 4):
        assert whole.update(transitions(32, seed=step)) == resumed.update(transitions(32, seed=step))
    assert_same(whole.get_weights(), resumed.get_weights())
    assert_same(whole.get_training_state(), resumed.get_training_state())
    assert {array.dtype for array in before.values()} == {np.dtype(np.float32)}
    assert any((array != before[key]).any() for key, array in whole.get_weights().items())


@pytest.mark.parametrize("name", RLLIB_LEARNERS)
def test_policy_acts_as_rllibs_own_module(name: str) -> None:
    torch = pytest.importorskip("torch")
    learner: Any = learner_of(name)
    learner.set_normaliser(normaliser_of(np.full(3, 0.5), np.full(3, 2.0), -1.0, 3.0))
    for step in range(5):
        learner.update(transitions(32, seed=step))
    observations = transitions(20)["obs"]
    module = learner._module
    with torch.no_grad():
        inputs = torch.from_numpy((observations - 0.5) / 2.0)
        logits = module.forward_inference({"obs": inputs})["action_dist_inputs"]
        distribution = module.get_inference_action_dist_cls().from_logits(logits).to_deterministic()
        mean = distribution.sample().numpy()
    # Its squashed Gaussian calls the mean before the tanh deterministic; what it was trained to do is the tanh.
    expected = np.tanh(mean) if name in {"rllib_cql", "rllib_iql"} else np.clip(mean, -1.0, 1.0)
    np.testing.assert_allclose(learner.policy().act(observations, np.random.default_rng(0)), expected, atol=2e-6)


def test_wrong_weights_batches_and_options_are_refused() -> None:
    learner = learner_of("rllib_bc")
    with pytest.raises(GridRayError, match="Weights have 'extra'"):
        learner.set_weights(learner.get_weights() | {"extra": np.zeros(1)})
    batch = transitions(8)
    batch["obs"][0, 0] = np.nan
    with pytest.raises(GridRayError, match="'obs' of the batch has NaN"):
        learner.update(batch)
    with pytest.raises(ConfigError, match="betta"):
        learner_of("rllib_marwil", options={"betta": 1.0})
    with pytest.raises(ConfigError, match="device is 'cuda'"):
        learner_of("rllib_bc", device="cuda")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> OfflineDataset:
    config = RecordConfig(task_config={"step_minutes": 60, "num_days": 10}, num_episodes=8, noise_std=0.3, seed=1)
    return record(config, tmp_path_factory.mktemp("data") / "north", use_ray=False)


@pytest.mark.parametrize("name", ["rllib_bc", "rllib_cql", "rllib_marwil"])
def test_rllib_learner_trains_on_a_recorded_dataset(name: str, dataset: OfflineDataset, tmp_path: Path) -> None:
    learner = {"hidden_sizes": [16], "learning_rate": 3e-3}
    config = TrainConfig(
        dataset=dataset.path, algorithm=name, num_updates=30, batch_size=32, report_every=15, learner=learner
    )
    result = train(config, tmp_path / "run")
    first, last = (row.metrics["total_loss"] for row in result.history)
    assert last < first
    policy = load_bundle(result.bundle).policy
    task = make_task(dataset.card.task, dataset.card.task_config)
    assert np.isfinite(evaluate_policy(policy, task, days=held_out_days(task, 1)).returns).all()
