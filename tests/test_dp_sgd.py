"""Noise inside a client: no unit moves a step by more than the clip, and membership is harder to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import stats

from gridray.algorithms.base import HAS_NEXT_ACTIONS, NEXT_ACTIONS
from gridray.algorithms.gradient import GradientLearner
from gridray.algorithms.registry import LEARNERS, make_learner
from gridray.errors import ConfigError, FederationError
from gridray.federated.privacy.accounting import Unit
from gridray.federated.privacy.clipping import clip_update, clipped_gradients, network_of
from gridray.federated.privacy.dp_sgd import SUPPORTED, DpSgdConfig, PrivateTraining
from gridray.federated.privacy.noise import SecretStream
from gridray.federated.privacy.units import SecretBatches, unit_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SECRET = bytes(range(32))
NUM_ROWS = 12


def some_days(num_days: int, *, seed: int, observation_size: int = 6) -> dict[str, NDArray[Any]]:
    """Days of which the actions follow nothing: only memory can tell them."""
    rng = np.random.default_rng(seed)
    size = (num_days * NUM_ROWS, observation_size)
    return {
        "eps_id": np.repeat([f"day{day:04d}" for day in range(num_days)], NUM_ROWS),
        "obs": rng.normal(size=size).astype(np.float32),
        "new_obs": rng.normal(size=size).astype(np.float32),
        "actions": rng.uniform(-0.9, 0.9, size=(size[0], 2)).astype(np.float32),
        "rewards": rng.normal(size=size[0]).astype(np.float32),
        "terminateds": np.zeros(size[0], dtype=bool),
        NEXT_ACTIONS: rng.uniform(-0.9, 0.9, size=(size[0], 2)).astype(np.float32),
        HAS_NEXT_ACTIONS: np.ones(size[0], dtype=np.float32),
    }


def learner(algorithm: str = "bc", width: int = 16, **settings: float) -> GradientLearner:
    config = {"hidden_sizes": [width, width]} | settings
    made = make_learner(algorithm, observation_size=6, action_size=2, config=config, seed=0)
    assert isinstance(made, GradientLearner)
    return made


def as_batch(columns: dict[str, NDArray[Any]], num_units: int) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(np.asarray(column, dtype=np.float32)).reshape(num_units, -1, *column.shape[1:])
        for name, column in columns.items()
        if name != "eps_id"
    }


def losses_of(trained: GradientLearner) -> Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda batch: trained.networks.losses(batch, trained.next_step)


def norm_of(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt())


@pytest.mark.parametrize("algorithm", ["bc", "iql"])
def test_gradients_of_units_add_up_to_the_plain_gradient_where_nothing_is_clipped(algorithm: str) -> None:
    trained = learner(algorithm)
    networks = trained.networks
    columns = some_days(40, seed=1)
    found = clipped_gradients(networks, losses_of(trained), as_batch(columns, 40), clip=1e9)
    # The mean over all rows is the mean over days of equal length: their sum is 40 times as much.
    whole = {name: column.flatten(0, 1) for name, column in as_batch(columns, 40).items()}
    (40 * torch.stack(list(losses_of(trained)(whole).values())).sum()).backward()
    expected = {name: tensor.grad for name, tensor in networks.named_parameters() if tensor.requires_grad}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("algorithm", sorted(SUPPORTED))
def test_one_unit_moves_the_sum_by_the_clip_at_most(algorithm: str) -> None:
    # Random actions of the targets would differ from call to call.
    trained = learner(algorithm, **({"target_noise": 0.0} if algorithm in {"rebrac", "td3_bc"} else {}))
    networks, losses = trained.networks, losses_of(trained)
    columns = some_days(5, seed=2)
    columns["rewards"][: 2 * NUM_ROWS] *= 1e4
    batch = as_batch(columns, 5)
    everyone = clipped_gradients(networks, losses, batch, clip=0.5)
    for day in range(5):
        kept = [other for other in range(5) if other != day]
        without = clipped_gradients(networks, losses, {k: v[kept] for k, v in batch.items()}, clip=0.5)
        change = {name: everyone[name] - without[name] for name in everyone}
        assert norm_of(change) <= 0.5 * (1 + 1e-5)
        # Each network has an equal part of the clip.
        networks_found = {network_of(name) for name in change}
        for network in networks_found:
            part = {name: tensor for name, tensor in change.items() if network_of(name) == network}
            assert norm_of(part) <= 0.5 / len(networks_found) ** 0.5 * (1 + 1e-5)


def test_empty_batch_has_zero_gradient() -> None:
    trained = learner()
    batch = {name: column[:0] for name, column in as_batch(some_days(2, seed=3), 2).items()}
    assert norm_of(clipped_gradients(trained.networks, losses_of(trained), batch, clip=1.0)) == 0.0


def test_noise_has_the_stated_size() -> None:
    config = DpSgdConfig(epsilon=8.0, noise_multiplier=3.0, clip=0.7, units_per_batch=4, rows_per_unit=2)
    training = PrivateTraining(learner(width=64), some_days(20, seed=4), config, SecretStream(SECRET))
    zeros = {"weight": torch.zeros(200, 300), "bias": torch.zeros(1000)}
    noisy = training._noisy(zeros, "round 0")
    values = torch.cat([noisy["weight"].flatten(), noisy["bias"]]).numpy()
    # Noise on the sum has standard deviation 3 * 0.7; the sum is divided by 4 units.
    assert stats.kstest(values / (3.0 * 0.7 / 4), "norm").pvalue > 1e-6


def test_secret_numbers_follow_from_secret_and_purpose_only() -> None:
    stream, other = SecretStream(SECRET, "north"), SecretStream(bytes(32), "north")
    first = stream.normal(10_001, "noise", "3")
    np.testing.assert_array_equal(first, SecretStream(SECRET, "north").normal(10_001, "noise", "3"))
    for different in (stream.normal(10_001, "noise", "4"), other.normal(10_001, "noise", "3")):
        assert abs(np.corrcoef(first, different)[0, 1]) < 0.05
    assert stats.kstest(first, "norm").pvalue > 1e-6
    assert stats.kstest(stream.uniform(10_000, "units"), "uniform").pvalue > 1e-6


def test_a_step_repeats_bit_for_bit_and_moves_the_weights() -> None:
    config = DpSgdConfig(epsilon=8.0, noise_multiplier=1.0, units_per_batch=4, rows_per_unit=3)
    weights = []
    for purpose in ("0", "0", "1"):
        trained = learner("iql")
        before = trained.get_weights()
        PrivateTraining(trained, some_days(20, seed=5), config, SecretStream(SECRET)).step("round", purpose)
        weights.append(trained.get_weights())
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not np.array_equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert not np.array_equal(weights[0]["critic.kernels.0"], before["critic.kernels.0"])
    # Target networks follow, the normaliser stays.
    assert not np.array_equal(weights[0]["target_critic.kernels.0"], before["target_critic.kernels.0"])
    np.testing.assert_array_equal(weights[0]["normaliser.observation_std"], before["normaliser.observation_std"])


@pytest.mark.parametrize("algorithm", sorted(LEARNERS))
def test_algorithms_train_privately_or_are_refused(algorithm: str) -> None:
    trained = make_learner(algorithm, observation_size=6, action_size=2, config={"hidden_sizes": [8]}, seed=0)
    config = DpSgdConfig(epsilon=8.0, noise_multiplier=1.0, units_per_batch=4, rows_per_unit=3)
    if algorithm not in SUPPORTED:
        with pytest.raises(ConfigError, match=f"DP-SGD cannot train '{algorithm}'"):
            PrivateTraining(trained, some_days(20, seed=9), config, SecretStream(SECRET))
        return
    before = trained.get_weights()
    training = PrivateTraining(trained, some_days(20, seed=9), config, SecretStream(SECRET))
    moved = []
    for step in range(2):
        training.step(str(step))
        after = trained.get_weights()
        moved.append({network_of(name) for name in after if not np.array_equal(after[name], before[name])})
        before = after
    # An actor that moves every other step is not moved by noise alone in the other ones.
    assert ("actor" in moved[0]) == (algorithm not in {"rebrac", "td3_bc"})
    assert "actor" in moved[1]


def test_every_unit_is_drawn_with_the_same_probability_whatever_its_length() -> None:
    unit_of_row = np.repeat(np.arange(50), np.arange(1, 51))
    batches = SecretBatches(unit_of_row, sampling_rate=0.2, rows_per_unit=3)
    counts, sizes = np.zeros(50), []
    for step in range(2000):
        rows = batches.draw(SecretStream(SECRET), str(step))
        drawn = unit_of_row[rows]
        assert (drawn == drawn[:, :1]).all(), "a row of the batch holds one unit"
        counts[drawn[:, 0]] += 1
        sizes.append(len(rows))
    # Binomial with 2000 draws at 0.2: standard deviation 17.9; five of them.
    assert (np.abs(counts - 400) < 5 * 17.9).all()
    # The size of a batch is binomial too, not constant: 50 * 0.2 * 0.8 = 8.
    assert np.var(sizes) == pytest.approx(8.0, rel=0.15)


def test_batch_may_be_empty() -> None:
    batches = SecretBatches(np.repeat(np.arange(5), 4), sampling_rate=1e-9, rows_per_unit=3)
    assert batches.draw(SecretStream(SECRET), "0").shape == (0, 3)


def test_days_are_calendar_days_where_rows_have_a_time() -> None:
    times = np.array(["2024-01-01T23:45", "2024-01-02T00:00", "2024-01-02T12:00", "2025-01-02T12:00"], "datetime64[ms]")
    columns = {"eps_id": np.array(["a", "b", "c", "c"]), "timestamp": times}
    assert unit_of_rows(Unit.DAY, columns).tolist() == [0, 1, 1, 2]
    assert unit_of_rows(Unit.FEEDER_YEAR, columns).tolist() == [0, 0, 0, 1]
    assert unit_of_rows(Unit.TRANSITION, columns).tolist() == [0, 1, 2, 3]
    without = {"eps_id": columns["eps_id"]}
    assert unit_of_rows(Unit.DAY, without).tolist() == [0, 1, 2, 2]
    assert unit_of_rows(Unit.FEEDER_YEAR, without).tolist() == [0, 0, 0, 0]
    with pytest.raises(ConfigError, match="no unit 'utility'"):
        unit_of_rows(Unit.UTILITY, without)


def attack_auc(trained: GradientLearner, members: dict[str, NDArray[Any]], others: dict[str, NDArray[Any]]) -> float:
    """Tell members' days from others by their loss; return the area under the curve, 0.5 for a guess."""
    losses = []
    for columns in (members, others):
        batch = as_batch(columns, len(columns["rewards"]) // NUM_ROWS)
        with torch.no_grad():
            losses.append(
                [
                    float(losses_of(trained)({k: v[day] for k, v in batch.items()})["actor_loss"])
                    for day in range(len(batch["obs"]))
                ]
            )
    result = stats.mannwhitneyu(losses[1], losses[0])
    return float(result.statistic) / (len(losses[0]) * len(losses[1]))


def test_membership_attack_wins_on_plain_training_and_loses_on_private_training() -> None:
    num_days, num_steps = 30, 300
    members, others = some_days(num_days, seed=6), some_days(200, seed=7)
    plain = learner(width=64, learning_rate=3e-3)
    batch = {name: column.flatten(0, 1) for name, column in as_batch(members, num_days).items()}
    for _ in range(num_steps):
        plain.update(batch)
    config = DpSgdConfig(epsilon=2.0, delta=1e-3, noise_multiplier=4.0, units_per_batch=6, rows_per_unit=NUM_ROWS)
    private = learner(width=64, learning_rate=3e-3)
    training = PrivateTraining(private, members, config, SecretStream(SECRET))
    assert training.mechanism.allows(60, config.budget)
    for step in range(60):
        training.step(str(step))
    assert attack_auc(plain, members, others) > 0.9
    assert attack_auc(private, members, others) < 0.65


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": Unit.UTILITY}, "not 'utility'"),
        ({"clip": 0.0}, "clip 0.0"),
        ({"rows_per_unit": 0}, "of 1 or more"),
        ({"unit": Unit.TRANSITION}, "give rows_per_unit 1, it is 16"),
        ({"epsilon": -1.0}, "epsilon -1.0"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DpSgdConfig(**({"epsilon": 1.0, "noise_multiplier": 1.0} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"units_per_batch": 21}, "has 20 units"), ({"delta": 0.06}, "delta 0.06 for 20 units")],
)
def test_data_that_a_budget_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    config = DpSgdConfig(**({"epsilon": 1.0, "noise_multiplier": 1.0} | changes))
    with pytest.raises(ConfigError, match=message):
        PrivateTraining(learner(), some_days(20, seed=8), config, SecretStream(SECRET))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_clipped_update_is_within_the_limit_and_keeps_its_direction(scale: float) -> None:
    update = np.random.default_rng(0).normal(size=1000) * scale
    values, norm = clip_update(update, 3.0)
    assert norm == pytest.approx(float(np.linalg.norm(update)))
    assert np.linalg.norm(values) <= 3.0
    np.testing.assert_allclose(values * max(norm / 3.0, 1.0), update, rtol=1e-9)


def test_update_that_is_not_finite_is_refused() -> None:
    with pytest.raises(FederationError, match="NaN or infinite"):
        clip_update(np.array([1.0, np.nan]), 1.0)
