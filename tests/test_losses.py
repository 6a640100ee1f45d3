"""Each algorithm's losses on four fixed transitions against its formulas in NumPy, float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transitions import learner_of, transitions

from gridray.algorithms import products, sampled_values
from gridray.algorithms.base import Learner, normaliser_of
from gridray.algorithms.networks import TwinCritic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Weights = Mapping[str, NDArray[Any]]
    Floats = NDArray[np.float64]

DISCOUNT = 0.95


def forward(weights: Weights, prefix: str, inputs: Floats) -> Floats:
    """Return the output of three linear layers with ReLU between them."""
    hidden = inputs
    for index in range(3):
        kernel = weights[f"{prefix}.layers.{index}.weight"].astype(np.float64)
        hidden = hidden @ kernel.T + weights[f"{prefix}.layers.{index}.bias"]
        hidden = np.maximum(hidden, 0.0) if index < 2 else hidden
    return hidden


def critics(weights: Weights, prefix: str, observations: Floats, actions: Floats) -> Floats:
    """Return both critics' values [2, n]; a hidden layer is linear, ReLU, then layer normalisation if it has one."""
    values = []
    for critic in range(2):
        hidden = np.column_stack((observations, actions)).astype(np.float64)
        for index in range(3):
            kernel = weights[f"{prefix}.kernels.{index}"][critic].astype(np.float64)
            hidden = hidden @ kernel + weights[f"{prefix}.biases.{index}"][critic]
            hidden = np.maximum(hidden, 0.0) if index < 2 else hidden
            if index < 2 and f"{prefix}.gains.{index}" in weights:
                centred = hidden - hidden.mean(axis=1, keepdims=True)
                hidden = centred / np.sqrt(hidden.var(axis=1, keepdims=True) + 1e-5)
                hidden = hidden * weights[f"{prefix}.gains.{index}"][critic]
                hidden = hidden + weights[f"{prefix}.shifts.{index}"][critic]
        values.append(hidden[:, 0])
    return np.stack(values)


def log_density(weights: Weights, observations: Floats, actions: Floats) -> Floats:
    mean = np.tanh(forward(weights, "actor.mean", observations))
    std = np.exp(weights["actor.log_std"].astype(np.float64))
    density = np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))
    return np.log(density).sum(axis=1)


def trained(name: str, num_updates: int = 31, **config: object) -> tuple[Learner, Weights]:
    """Return a learner that is no longer at its start, so that targets and spreads differ from it."""
    learner = learner_of(name, **config)
    learner.set_normaliser(normaliser_of(np.full(3, 0.5), np.full(3, 2.0), -1.0, 3.0, 0.5))
    for step in range(num_updates):
        learner.update(transitions(32, seed=step))
    return learner, learner.get_weights()


@pytest.fixture
def batch() -> dict[str, NDArray[Any]]:
    """Four transitions, the second of them the end of an episode."""
    ends = np.array([False, True, False, False])
    return transitions(4, seed=77) | {"terminateds": ends, "has_new_actions": (~ends).astype(np.float32)}


def normalised(batch: dict[str, NDArray[Any]]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return observations, next observations, rewards, and what the next value counts."""
    return (
        (batch["obs"].astype(np.float64) - 0.5) / 2.0,
        (batch["new_obs"].astype(np.float64) - 0.5) / 2.0,
        (batch["rewards"].astype(np.float64) + 1.0) / 3.0,
        DISCOUNT * ~batch["terminateds"],
    )


def twin_loss(values: Floats, returns: Floats) -> float:
    return float(((values - returns) ** 2).mean(axis=1).sum())


def generator_of(learner: Learner) -> torch.Generator:
    """Return a generator that draws what the learner's next update will draw."""
    generator = torch.Generator()
    generator.set_state(torch.from_numpy(learner.get_training_state()["generator"]))
    return generator


def normal(generator: torch.Generator, *shape: int) -> Floats:
    return torch.randn(shape, generator=generator).numpy().astype(np.float64)


def assert_losses(learner: Learner, batch: dict[str, NDArray[Any]], expected: dict[str, float]) -> None:
    losses = learner.update(batch)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=2e-4), name


def test_bc_loss_is_the_negative_log_density(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("bc")
    observations, *_ = normalised(batch)
    assert_losses(learner, batch, {"actor_loss": -log_density(weights, observations, batch["actions"]).mean()})


def test_awr_losses_weigh_advantages_by_their_root_mean_square(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("awr", temperature=2.0, scale_rate=0.1)
    observations, following, rewards, discount = normalised(batch)
    returns = rewards + discount * forward(weights, "target_value", following)[:, 0]
    advantage = returns - forward(weights, "value", observations)[:, 0]
    scale = math.sqrt(weights["advantage_square"][0])
    weight = np.minimum(np.exp(2.0 * advantage / scale), 20.0)
    actor_loss = -(weight * log_density(weights, observations, batch["actions"])).mean()
    assert_losses(learner, batch, {"value_loss": (advantage**2).mean(), "actor_loss": actor_loss})
    moved = 0.9 * weights["advantage_square"][0] + 0.1 * (advantage**2).mean()
    assert learner.get_weights()["advantage_square"][0] == pytest.approx(moved, rel=1e-4)


def test_awr_learns_what_sampled_advantages_have_in_common(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("awr", temperature=2.0, scale_rate=0.1, advantage="learnt")
    observations, following, rewards, discount = normalised(batch)
    returns = rewards + discount * forward(weights, "target_value", following)[:, 0]
    advantage = returns - forward(weights, "value", observations)[:, 0]
    sampled = advantage / math.sqrt(weights["advantage_square"][0])
    expected = critics(weights, "critic", observations, batch["actions"])
    # What the policy itself would do counts as nothing gained.
    own = np.tanh(forward(weights, "actor.mean", observations))
    gain = (expected - critics(weights, "critic", observations, own)).mean(axis=0)
    weight = np.minimum(np.exp(2.0 * gain / math.sqrt(weights["learnt_square"][0])), 20.0)
    losses = {
        "value_loss": (advantage**2).mean(),
        "critic_loss": twin_loss(expected, sampled),
        "actor_loss": -(weight * log_density(weights, observations, batch["actions"])).mean(),
    }
    assert_losses(learner, batch, losses)
    moved = 0.9 * weights["learnt_square"][0] + 0.1 * (gain**2).mean()
    assert learner.get_weights()["learnt_square"][0] == pytest.approx(moved, rel=1e-4)


def iql_value_losses(weights: Weights, batch: dict[str, NDArray[Any]]) -> tuple[dict[str, float], Floats]:
    """Return the losses of value function and critics, and the advantages."""
    observations, following, rewards, discount = normalised(batch)
    # Equation 5: expectile regression of V on the target critics' minimum.
    least = critics(weights, "target_critic", observations, batch["actions"]).min(axis=0)
    difference = least - forward(weights, "value", observations)[:, 0]
    value_loss = (np.where(difference > 0, 0.7, 0.3) * difference**2).mean()
    # Equation 6, for both critics; nothing follows a terminal state.
    returns = rewards + discount * forward(weights, "value", following)[:, 0]
    critic_loss = twin_loss(critics(weights, "critic", observations, batch["actions"]), returns)
    return {"value_loss": value_loss, "critic_loss": critic_loss}, difference


def test_iql_losses_follow_the_paper(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("iql", temperature=2.0)
    losses, advantage = iql_value_losses(weights, batch)
    # Equation 7 with the weight limited to 100.
    weight = np.minimum(np.exp(2.0 * advantage), 100.0)
    log_likelihood = log_density(weights, normalised(batch)[0], batch["actions"])
    assert_losses(learner, batch, losses | {"actor_loss": -(weight * log_likelihood).mean()})


def test_iql_lagrange_prices_the_cost_and_moves_the_price(batch: dict[str, NDArray[Any]]) -> None:
    # 0.24 per 24 steps is 0.01 a step, 0.02 in units of the cost's standard deviation.
    learner, weights = trained("iql_lagrange", budget=0.24, budget_steps=24, multiplier_rate=0.1, temperature=2.0)
    observations, following, _, discount = normalised(batch)
    multiplier = float(weights["multiplier"][0])
    assert multiplier > 0.0
    losses, advantage = iql_value_losses(weights, batch)
    mean, next_mean = (np.tanh(forward(weights, "actor.mean", inputs)) for inputs in (observations, following))
    # The greater of two cost critics counts, at the policy's own action.
    next_cost = critics(weights, "target_cost_critic", following, next_mean).max(axis=0)
    totals = batch["cost_voltage_violation_pu"] / 0.5 + discount * next_cost
    values = critics(weights, "cost_critic", observations, batch["actions"])
    policy_cost = critics(weights, "cost_critic", observations, mean).max(axis=0)
    priced = (advantage - multiplier * (values.max(axis=0) - policy_cost)) / (1.0 + multiplier)
    log_likelihood = log_density(weights, observations, batch["actions"])
    actor_loss = -(np.minimum(np.exp(2.0 * priced), 100.0) * log_likelihood).mean()
    cost = (1.0 - DISCOUNT) * policy_cost.mean()
    moved = multiplier + 0.1 * (cost - 0.02)
    expected = losses | {"cost_critic_loss": twin_loss(values, totals), "actor_loss": actor_loss}
    assert_losses(learner, batch, expected | {"multiplier": max(moved, 0.0), "expected_cost": cost * 0.5 * 24})
    assert learner.get_weights()["multiplier"][0] == pytest.approx(max(moved, 0.0), rel=1e-4)


def td3_target(learner: Learner, weights: Weights, batch: dict[str, NDArray[Any]], penalty: float) -> Floats:
    _, following, rewards, discount = normalised(batch)
    noise = np.clip(0.2 * normal(generator_of(learner), 4, 2), -0.5, 0.5)
    actions = np.clip(np.tanh(forward(weights, "target_actor.mean", following)) + noise, -1.0, 1.0)
    distance = ((actions - batch["new_actions"]) ** 2).sum(axis=1)
    least = critics(weights, "target_critic", following, actions).min(axis=0)
    return rewards + discount * (least - penalty * batch["has_new_actions"] * distance)


def test_td3_bc_losses_follow_the_paper(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("td3_bc")
    observations, *_ = normalised(batch)
    returns = td3_target(learner, weights, batch, 0.0)
    critic_loss = twin_loss(critics(weights, "critic", observations, batch["actions"]), returns)
    action = np.tanh(forward(weights, "actor.mean", observations))
    first = critics(weights, "critic", observations, action)[0]
    # Equations 3 and 5.
    actor_loss = ((action - batch["actions"]) ** 2).mean() - 2.5 * first.mean() / np.abs(first).mean()
    assert_losses(learner, batch, {"critic_loss": critic_loss, "actor_loss": actor_loss})
    # The actor moves in every second update, and stands still in this one.
    before = learner.get_weights()
    assert learner.update(batch).keys() == {"critic_loss"}
    after = learner.get_weights()
    for name in ("actor.mean.layers.0.weight", "target_critic.kernels.0", "target_actor.mean.layers.0.weight"):
        np.testing.assert_array_equal(after[name], before[name])


def test_rebrac_losses_follow_the_paper(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("rebrac", actor_penalty=0.3, critic_penalty=0.2)
    observations, *_ = normalised(batch)
    returns = td3_target(learner, weights, batch, 0.2)
    critic_loss = twin_loss(critics(weights, "critic", observations, batch["actions"]), returns)
    action = np.tanh(forward(weights, "actor.mean", observations))
    least = critics(weights, "critic", observations, action).min(axis=0)
    distance = ((action - batch["actions"]) ** 2).sum(axis=1)
    actor_loss = (0.3 * distance - least / np.abs(least).mean()).mean()
    assert_losses(learner, batch, {"critic_loss": critic_loss, "actor_loss": actor_loss})


def squashed(weights: Weights, observations: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Return actions and log densities; noise [n, ..., 2] for observations [n, 3]."""
    hidden = observations
    for index in range(2):
        kernel = weights[f"actor.mean.layers.{index}.weight"].astype(np.float64)
        hidden = np.maximum(hidden @ kernel.T + weights[f"actor.mean.layers.{index}.bias"], 0.0)
    log_std = hidden @ weights["actor.log_std.weight"].astype(np.float64).T + weights["actor.log_std.bias"]
    mean = forward(weights, "actor.mean", observations)
    shape = (len(observations), *[1] * (noise.ndim - 2), 2)
    mean, std = mean.reshape(shape), np.exp(np.clip(log_std, -5.0, 2.0)).reshape(shape)
    raw = mean + std * noise
    density = np.exp(-0.5 * noise**2) / (std * math.sqrt(2.0 * math.pi)) / (1.0 - np.tanh(raw) ** 2)
    return np.tanh(raw), np.log(density).sum(axis=-1)


def test_cql_losses_follow_the_paper(batch: dict[str, NDArray[Any]]) -> None:
    learner, weights = trained("cql", num_action_samples=3, conservative_weight=5.0)
    observations, following, rewards, discount = normalised(batch)
    generator = generator_of(learner)
    own_action, own_density = squashed(weights, observations, normal(generator, 4, 2))
    noise = normal(generator, 4, 2, 3, 2)
    uniform = 2.0 * torch.rand((4, 3, 2), generator=generator).numpy().astype(np.float64) - 1.0
    next_mean = np.tanh(forward(weights, "actor.mean", following))
    returns = rewards + discount * critics(weights, "target_critic", following, next_mean).min(axis=0)
    data = critics(weights, "critic", observations, batch["actions"])
    # Appendix F: importance-weighted log sum exp over uniform actions and the actor's at s and s'.
    samples = [
        *zip(*(part.swapaxes(0, 1) for part in squashed(weights, observations, noise[:, 0])), strict=True),
        *zip(*(part.swapaxes(0, 1) for part in squashed(weights, following, noise[:, 1])), strict=True),
        *((actions, np.full(4, math.log(0.25))) for actions in uniform.swapaxes(0, 1)),
    ]
    terms = [critics(weights, "critic", observations, actions) - density for actions, density in samples]
    conservative = 5.0 * (np.log(np.exp(terms).sum(axis=0)) - data).mean(axis=1).sum()
    least = critics(weights, "critic", observations, own_action).min(axis=0)
    entropy_weight = math.exp(weights["log_entropy_weight"][0])
    expected = {
        "critic_loss": twin_loss(data, returns),
        "conservative_loss": conservative,
        "actor_loss": (entropy_weight * own_density - least).mean(),
        "entropy_loss": -entropy_weight * (own_density.mean() - 2.0),
    }
    assert_losses(learner, batch, expected)


@pytest.mark.parametrize("onednn_above", [0, 2**19])
def test_sampled_values_have_the_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch, onednn_above: int) -> None:
    monkeypatch.setattr(products, "_ONEDNN_ABOVE", onednn_above)
    generator = torch.Generator().manual_seed(0)
    critic = TwinCritic(3, 2, (8, 8))
    observations, actions = torch.randn(10, 3, generator=generator), torch.rand(10, 4, 2, generator=generator)
    densities = torch.randn(10, 4, generator=generator)
    # Three rows at a time, and one that is left.
    monkeypatch.setattr(sampled_values, "_CACHED_VALUES", 12 * 8)
    weights = list(critic.parameters())
    parts = critic.mean_log_sum_exp(observations, actions, densities)
    repeated = observations[:, None].expand(-1, 4, -1).reshape(40, 3)
    values = critic(repeated, actions.reshape(40, 2)).view(2, 10, 4)
    whole = torch.logsumexp(values - densities, dim=2).mean(dim=1).sum()
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    gradients = (torch.autograd.grad(3.0 * value, weights) for value in (parts, whole))
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
