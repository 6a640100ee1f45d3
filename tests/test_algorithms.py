"""One suite for every learner of the registry, and each loss against its formula."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridray.algorithms.base import MIN_OBSERVATION_STD, Learner, normaliser_of
from gridray.algorithms.batches import InMemoryBatches, normaliser_of_rows
from gridray.algorithms.bc import BcConfig
from gridray.algorithms.iql import IqlConfig
from gridray.algorithms.registry import LEARNERS, make_learner
from gridray.errors import ConfigError, DatasetError, GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OBSERVATIONS, ACTIONS = 3, 2
SMALL = {"hidden_sizes": [16, 16], "learning_rate": 3e-3}
Batch = dict[str, "NDArray[Any]"]


def learner_of(name: str, seed: int = 0, **config: object) -> Learner:
    return make_learner(name, observation_size=OBSERVATIONS, action_size=ACTIONS, config={**SMALL, **config}, seed=seed)


def transitions(num_rows: int, seed: int = 0) -> Batch:
    """Return transitions of no particular task."""
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(num_rows, OBSERVATIONS)).astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, (num_rows, ACTIONS)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "new_obs": rng.normal(size=(num_rows, OBSERVATIONS)).astype(np.float32),
        "terminateds": rng.random(num_rows) < 0.2,
        "truncateds": np.zeros(num_rows, dtype=np.bool_),
    }


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


def test_training_state_and_weights_are_all_that_continuation_needs(name: str) -> None:
    whole, stopped = learner_of(name, seed=1), learner_of(name, seed=1)
    for step in range(3):
        whole.update(transitions(32, seed=step))
        stopped.update(transitions(32, seed=step))
    resumed = learner_of(name, seed=9)
    resumed.set_training_state(stopped.get_training_state())
    resumed.set_weights(stopped.get_weights())
    for step in range(3, 6):
        assert whole.update(transitions(32, seed=step)) == resumed.update(transitions(32, seed=step))
    assert_same(whole.get_weights(), resumed.get_weights())
    assert_same(whole.get_training_state(), resumed.get_training_state())


def test_wrong_weights_are_refused_by_name(name: str) -> None:
    learner = learner_of(name)
    weights = learner.get_weights()
    lacking = {key: array for key, array in weights.items() if key != "actor.log_std"}
    with pytest.raises(GridRayError, match=r"lack 'actor\.log_std'"):
        learner.set_weights(lacking)
    with pytest.raises(GridRayError, match="have 'extra'"):
        learner.set_weights(weights | {"extra": np.zeros(1)})
    with pytest.raises(GridRayError, match=r"'actor.log_std' has shape \(5,\)"):
        learner.set_weights(weights | {"actor.log_std": np.zeros(5)})
    assert_same(learner.get_weights(), weights)


@pytest.mark.parametrize("column", ["obs", "actions", "rewards", "new_obs"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_that_is_not_finite_is_named_and_changes_nothing(name: str, column: str, value: float) -> None:
    learner = learner_of(name)
    weights = learner.get_weights()
    batch = transitions(8)
    batch[column].flat[3] = value
    with pytest.raises(GridRayError, match=f"'{column}' of the batch has NaN or infinite"):
        learner.update(batch)
    assert_same(learner.get_weights(), weights)


def test_batch_of_another_task_is_refused(name: str) -> None:
    batch = transitions(8)
    with pytest.raises(GridRayError, match=r"'obs' of the batch has shape \(8, 2\), this learner needs \[n, 3\]"):
        learner_of(name).update(batch | {"obs": batch["obs"][:, :2]})
    batch.pop("rewards")
    with pytest.raises(GridRayError, match="no column 'rewards'"):
        learner_of(name).update(batch)


def test_divergence_is_an_error_and_not_a_policy() -> None:
    learner = learner_of("iql")
    batch = transitions(8)
    batch["rewards"][:] = 1e30
    with pytest.raises(GridRayError, match="critic_loss is inf after 0 updates"):
        learner.update(batch)


def test_unknown_algorithm_or_setting_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no algorithm 'iqll': give one of bc, iql"):
        make_learner("iqll", observation_size=1, action_size=1)
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        learner_of(name, learning_rte=1.0)


def test_values_without_meaning_are_refused() -> None:
    for setting in ({"learning_rate": 0.0}, {"hidden_sizes": (0,)}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            BcConfig(**setting)
    for setting in (
        {"discount": 1.0},
        {"expectile": 1.0},
        {"temperature": 0.0},
        {"max_advantage_weight": -1.0},
        {"target_rate": 0.0},
        {"actor_decay_updates": 0},
    ):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            IqlConfig(**setting)


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


def forward(weights: Mapping[str, NDArray[Any]], prefix: str, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the output of three linear layers with ReLU between them."""
    hidden = inputs
    for index in range(3):
        kernel = weights[f"{prefix}.layers.{index}.weight"].astype(np.float64)
        hidden = hidden @ kernel.T + weights[f"{prefix}.layers.{index}.bias"]
        hidden = np.maximum(hidden, 0.0) if index < 2 else hidden
    return hidden


def critics(weights: Mapping[str, NDArray[Any]], prefix: str, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return both critics' values [2, n]."""
    values = []
    for critic in range(2):
        hidden = inputs
        for index in range(3):
            kernel = weights[f"{prefix}.kernels.{index}"][critic].astype(np.float64)
            hidden = hidden @ kernel + weights[f"{prefix}.biases.{index}"][critic]
            hidden = np.maximum(hidden, 0.0) if index < 2 else hidden
        values.append(hidden[:, 0])
    return np.stack(values)


def log_density(
    weights: Mapping[str, NDArray[Any]], observations: NDArray[Any], actions: NDArray[Any]
) -> NDArray[np.float64]:
    mean = np.tanh(forward(weights, "actor.mean", observations))
    std = np.exp(weights["actor.log_std"].astype(np.float64))
    density = np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))
    return np.log(density).sum(axis=1)


def trained(name: str) -> tuple[Learner, Mapping[str, NDArray[Any]]]:
    """Return a learner that is no longer at its start, so that targets and spreads differ from it."""
    learner = learner_of(name, **({"temperature": 2.0} if name == "iql" else {}))
    learner.set_normaliser(normaliser_of(np.full(3, 0.5), np.full(3, 2.0), -1.0, 3.0))
    for step in range(30):
        learner.update(transitions(32, seed=step))
    return learner, learner.get_weights()


def test_bc_loss_is_the_negative_log_density() -> None:
    learner, weights = trained("bc")
    batch = transitions(4, seed=77)
    expected = -log_density(weights, (batch["obs"] - 0.5) / 2.0, batch["actions"]).mean()
    assert learner.update(batch)["actor_loss"] == pytest.approx(expected, rel=1e-5)


def test_iql_losses_follow_the_paper() -> None:
    learner, weights = trained("iql")
    batch = transitions(4, seed=78)
    batch["terminateds"] = np.array([False, True, False, False])
    observations, following = (batch["obs"] - 0.5) / 2.0, (batch["new_obs"] - 0.5) / 2.0
    inputs = np.column_stack((observations, batch["actions"]))
    value = forward(weights, "value", observations)[:, 0]
    # Equation 5: expectile regression of V on the target critics' minimum.
    difference = critics(weights, "target_critic", inputs).min(axis=0) - value
    value_loss = (np.where(difference > 0, 0.7, 0.3) * difference**2).mean()
    # Equation 6, for both critics; nothing follows a terminal state.
    returns = (batch["rewards"] + 1.0) / 3.0 + 0.95 * ~batch["terminateds"] * forward(weights, "value", following)[:, 0]
    critic_loss = ((critics(weights, "critic", inputs) - returns) ** 2).mean(axis=1).sum()
    # Equation 7 with the weight limited to 100.
    weight = np.minimum(np.exp(2.0 * difference), 100.0)
    actor_loss = -(weight * log_density(weights, observations, batch["actions"])).mean()
    losses = learner.update(batch)
    assert losses["value_loss"] == pytest.approx(value_loss, rel=1e-4)
    assert losses["critic_loss"] == pytest.approx(critic_loss, rel=1e-4)
    assert losses["actor_loss"] == pytest.approx(actor_loss, rel=1e-4)


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
