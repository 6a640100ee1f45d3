"""One suite for every learner of the registry."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from transitions import learner_of, transitions

from gridray.algorithms.awr import AwrConfig
from gridray.algorithms.base import MIN_OBSERVATION_STD, Learner, normaliser_of
from gridray.algorithms.batches import InMemoryBatches, normaliser_of_rows
from gridray.algorithms.bc import BcConfig
from gridray.algorithms.cql import CqlConfig
from gridray.algorithms.iql import IqlConfig
from gridray.algorithms.iql_lagrange import IqlLagrangeConfig
from gridray.algorithms.rebrac import ReBracConfig
from gridray.algorithms.registry import LEARNERS, make_learner
from gridray.algorithms.td3_bc import Td3BcConfig
from gridray.errors import ConfigError, DatasetError, GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Batch = dict[str, "NDArray[Any]"]


def actions_of(learner: Learner, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    return learner.policy().act(observations, np.random.default_rng(0))


def assert_same(ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.fixture(params=sorted(LEARNERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_same_seed_gives_same_weights_and_another_seed_others(name: str) -> None:
    first, second, other = learner_of(name, seed=1), learner_of(name, seed=1), learner_of(name, seed=2)
    for step in range(5):
        batch = transitions(32, seed=step)
        assert first.update(batch) == second.update(batch)
        other.update(batch)
    assert_same(first.get_weights(), second.get_weights())
    assert any((array != other.get_weights()[key]).any() for key, array in first.get_weights().items())


def test_weights_go_round_and_the_actions_with_them(name: str) -> None:
    first, second = learner_of(name, seed=1), learner_of(name, seed=2)
    data = transitions(64)
    first.set_normaliser(normaliser_of(np.full(3, 0.5), np.array([0.0, 1.0, 2.0]), -3.0, 0.0))
    first.update(data)
    weights = first.get_weights()
    second.set_weights(weights)
    assert_same(second.get_weights(), weights)
    np.testing.assert_array_equal(actions_of(second, data["obs"]), actions_of(first, data["obs"]))
    assert weights["normaliser.observation_std"][0] == np.float32(MIN_OBSERVATION_STD)
    assert weights["normaliser.reward_std"][0] == 1.0
    before = {key: array.copy() for key, array in weights.items()}
    first.update(data)
    assert_same(weights, before)


@pytest.mark.parametrize("width", [5, 130])
def test_training_state_and_weights_are_all_that_continuation_needs(name: str, width: int) -> None:
    # Wide layers are multiplied by another library than narrow ones.
    whole, stopped, resumed = (learner_of(name, seed=seed, hidden_sizes=[width, width]) for seed in (1, 1, 9))
    for step in range(3):
        whole.update(transitions(32, seed=step))
        stopped.update(transitions(32, seed=step))
    resumed.set_training_state(stopped.get_training_state())
    resumed.set_weights(stopped.get_weights())
    for step in range(3, 6):
        assert whole.update(transitions(32, seed=step)) == resumed.update(transitions(32, seed=step))
    assert_same(whole.get_weights(), resumed.get_weights())
    assert_same(whole.get_training_state(), resumed.get_training_state())


def test_wrong_weights_are_refused_by_name(name: str) -> None:
    learner = learner_of(name)
    weights = learner.get_weights()
    bias = "actor.mean.layers.0.bias"
    lacking = {key: array for key, array in weights.items() if key != bias}
    with pytest.raises(GridRayError, match=r"lack 'actor\.mean\.layers\.0\.bias'"):
        learner.set_weights(lacking)
    with pytest.raises(GridRayError, match="have 'extra'"):
        learner.set_weights(weights | {"extra": np.zeros(1)})
    with pytest.raises(GridRayError, match=r"'actor\.mean\.layers\.0\.bias' has shape \(5,\)"):
        learner.set_weights(weights | {bias: np.zeros(5)})
    assert_same(learner.get_weights(), weights)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_not_finite_is_named_and_changes_nothing(name: str, value: float) -> None:
    learner = learner_of(name)
    weights, state = learner.get_weights(), learner.get_training_state()
    for column in set(learner.columns) - {"terminateds"}:
        batch = transitions(8)
        batch[column].flat[3] = value
        with pytest.raises(GridRayError, match=f"'{column}' of the batch has NaN or infinite"):
            learner.update(batch)
    assert_same(learner.get_weights(), weights)
    assert_same(learner.get_training_state(), state)


def test_batch_of_another_task_is_refused(name: str) -> None:
    batch = transitions(8)
    with pytest.raises(GridRayError, match=r"'obs' of the batch has shape \(8, 2\), this learner needs \[n, 3\]"):
        learner_of(name).update(batch | {"obs": batch["obs"][:, :2]})
    batch.pop("actions")
    with pytest.raises(GridRayError, match="no column 'actions'"):
        learner_of(name).update(batch)


def test_divergence_is_an_error_and_not_a_policy() -> None:
    learner = learner_of("iql")
    batch = transitions(8)
    batch["rewards"][:] = 1e30
    with pytest.raises(GridRayError, match="critic_loss is inf after 0 updates"):
        learner.update(batch)


@pytest.mark.parametrize("device", ["gpu0", "cuda:99"])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{device}', which PyTorch cannot use here"):
        learner_of("bc", device=device)


def test_unknown_algorithm_or_setting_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no algorithm 'iqll': give one of awr, bc, cql, iql, "):
        make_learner("iqll", observation_size=1, action_size=1)
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        learner_of(name, learning_rte=1.0)


@pytest.mark.parametrize(
    ("config_class", "settings"),
    [
        (BcConfig, {"learning_rate": 0.0, "hidden_sizes": (0,), "max_grad_norm": 0.0}),
        (AwrConfig, {"discount": 1.0, "temperature": -1.0, "max_advantage_weight": 0.0, "scale_rate": 0.0}),
        (IqlConfig, {"expectile": 1.0, "temperature": 0.0, "max_advantage_weight": -1.0, "actor_decay_updates": 0}),
        (IqlLagrangeConfig, {"budget": -1.0, "budget_steps": 0, "multiplier_rate": 0.0, "max_multiplier": 0.0}),
        (Td3BcConfig, {"target_rate": 0.0, "policy_delay": 0, "target_noise": -1.0, "value_weight": -1.0}),
        (ReBracConfig, {"target_noise_limit": -1.0, "actor_penalty": -1.0, "critic_penalty": -1.0}),
        (CqlConfig, {"actor_learning_rate": 0.0, "conservative_weight": -1.0, "num_action_samples": 0}),
    ],
)
def test_values_without_meaning_are_refused(config_class: type[Any], settings: dict[str, Any]) -> None:
    for setting, value in settings.items():
        with pytest.raises(ConfigError, match=setting):
            config_class(**{setting: value})


def test_gradients_are_clipped_to_the_norm(name: str) -> None:
    # Adam's second moment after one step is 0.001 of the squared gradient: it tells the gradient's norm.
    limit = 1e-3
    learner = learner_of(name, max_grad_norm=limit)
    learner.update(transitions(32))
    state = learner.get_training_state()
    squares = {key: array.sum() / 1e-3 for key, array in state.items() if key.startswith("exp_avg_sq.")}
    for is_actor in (True, False):
        parts = [square for key, square in squares.items() if key.startswith("exp_avg_sq.actor.") == is_actor]
        assert sum(parts) <= 1.01 * limit**2
    assert sum(squares.values()) > 0.5 * limit**2


def test_policy_equals_the_actor_of_torch() -> None:
    torch = pytest.importorskip("torch")
    learner = learner_of("iql")
    learner.set_normaliser(normaliser_of(np.array([1.0, -2.0, 0.0]), np.array([0.5, 3.0, 0.01]), 0.0, 1.0))
    observations = transitions(50)["obs"]
    networks = learner._networks
    with torch.no_grad():
        normalised = networks.normaliser.observations(torch.from_numpy(observations))
        expected = torch.tanh(networks.actor.mean(normalised)).numpy()
    np.testing.assert_allclose(actions_of(learner, observations), expected, atol=2e-6)


def test_policy_refuses_what_it_cannot_answer() -> None:
    policy = learner_of("bc").policy()
    with pytest.raises(GridRayError, match=r"shape \(2, 4\): give \[n, 3\]"):
        policy.act(np.zeros((2, 4), dtype=np.float32), np.random.default_rng(0))
    observations = np.zeros((2, 3), dtype=np.float32)
    observations[1, 2] = np.nan
    with pytest.raises(GridRayError, match="Observation 2 in row 1 is nan"):
        policy.act(observations, np.random.default_rng(0))


def test_target_critics_follow_and_no_loss_moves_them() -> None:
    learner = learner_of("iql", target_rate=0.25)
    before = learner.get_weights()
    learner.update(transitions(16))
    after = learner.get_weights()
    expected = 0.75 * before["target_critic.kernels.0"] + 0.25 * after["critic.kernels.0"]
    np.testing.assert_allclose(after["target_critic.kernels.0"], expected, atol=1e-7)


def test_decayed_actor_stands_still_and_the_critics_go_on() -> None:
    learner = learner_of("iql", actor_decay_updates=2)
    for step in range(2):
        learner.update(transitions(16, seed=step))
    before = learner.get_weights()
    learner.update(transitions(16, seed=2))
    after = learner.get_weights()
    np.testing.assert_array_equal(after["actor.log_std"], before["actor.log_std"])
    assert (after["critic.kernels.0"] != before["critic.kernels.0"]).any()


def test_truncation_changes_nothing_and_termination_does() -> None:
    batch = transitions(16) | {"terminateds": np.zeros(16, dtype=np.bool_)}
    ends = np.ones(16, dtype=np.bool_)
    plain, truncated, terminated = (
        learner_of("iql").update(changed)
        for changed in (batch, batch | {"truncateds": ends}, batch | {"terminateds": ends})
    )
    assert plain == truncated
    assert plain["critic_loss"] != terminated["critic_loss"]


def point_mass(num_rows: int) -> Batch:
    """Return random moves of a point on a line that is paid for being near a goal which it sees.

    x' = 0.9 x + 0.5 a, reward -(x' - goal)^2, first action only; the second does nothing.
    """
    rng = np.random.default_rng(0)
    position, goal = rng.uniform(-1.0, 1.0, (2, num_rows))
    actions = rng.uniform(-1.0, 1.0, (num_rows, 2))
    moved = 0.9 * position + 0.5 * actions[:, 0]
    one = np.ones(num_rows)
    return {
        "obs": np.column_stack((position, goal, one)).astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": (-np.square(moved - goal)).astype(np.float32),
        "new_obs": np.column_stack((moved, goal, one)).astype(np.float32),
        "terminateds": np.zeros(num_rows, dtype=np.bool_),
        "truncateds": np.zeros(num_rows, dtype=np.bool_),
    }


def mean_return(learner: Learner | None) -> float:
    """Return the mean over 200 starts of 10 rewards; None moves at random, as the data did."""
    rng = np.random.default_rng(1)
    position, goal = rng.uniform(-1.0, 1.0, (2, 200))
    total = np.zeros(200)
    for _ in range(10):
        observations = np.column_stack((position, goal, np.ones(200))).astype(np.float32)
        actions = rng.uniform(-1.0, 1.0, (200, 2)) if learner is None else actions_of(learner, observations)
        position = 0.9 * position + 0.5 * actions[:, 0]
        total -= np.square(position - goal)
    return float(total.mean())


def test_iql_learns_what_random_moves_show_and_bc_does_not() -> None:
    data = point_mass(4000)
    returns = {}
    for name, config in (("bc", {}), ("iql", {"temperature": 5.0, "expectile": 0.8, "discount": 0.5})):
        learner = learner_of(name, hidden_sizes=[32, 32], **config)
        learner.set_normaliser(normaliser_of_rows([data]))
        batches = InMemoryBatches(data, batch_size=128, seed=0, device="cpu")
        for _ in range(500):
            learner.update(batches.draw())
        returns[name] = mean_return(learner)
    behaviour = mean_return(None)
    assert returns["iql"] > 0.25 * behaviour
    assert returns["iql"] > 0.5 * returns["bc"]


def test_normaliser_is_of_all_parts_and_shifts_rewards_only_without_terminals() -> None:
    data = transitions(300)
    going_on = data | {"terminateds": np.zeros(300, dtype=np.bool_)}
    parts = [{key: array[rows] for key, array in going_on.items()} for rows in (slice(100), slice(100, 300))]
    normaliser = normaliser_of_rows(parts)
    np.testing.assert_allclose(normaliser.observation_mean, data["obs"].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(normaliser.observation_std, data["obs"].std(axis=0), rtol=1e-5)
    assert normaliser.reward_mean == pytest.approx(data["rewards"].mean(), rel=1e-4)
    assert normaliser_of_rows([data]).reward_mean == 0.0


def test_normaliser_refuses_no_data_and_bad_data() -> None:
    with pytest.raises(DatasetError, match="no transition"):
        normaliser_of_rows([])
    data = transitions(10)
    data["obs"][4, 1] = np.nan
    with pytest.raises(DatasetError, match="obs, component 1, has NaN"):
        normaliser_of_rows([data])
