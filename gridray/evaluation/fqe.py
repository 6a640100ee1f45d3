"""Fitted Q evaluation: the value of a policy from logged days, by an ensemble of small networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray  # noqa: TC002  # NamedTuple fields
from torch import nn

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from gridray.policies.base import Policy

MIN_STD = 1e-3
NUM_DRAWS = 8
"""Draws of the policy's noise over which a value is the mean."""


class Episodes(NamedTuple):
    """n logged episodes of T steps.

    obs: float32 [n, T, S]; actions: float32 [n, T, A]; rewards: float64 [n, T]; new_obs: float32 [n, T, S].
    """

    obs: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    new_obs: NDArray[np.float32]


class Values(NamedTuple):
    """Undiscounted return from a step to the end of the day: q of the logged action, v of the policy, [K, n, T]."""

    q: NDArray[np.float64]
    v: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FqeConfig:
    """num_members networks, each trained on episodes drawn with replacement; target_rate: of the target networks."""

    num_members: int = 5
    hidden_size: int = 64
    num_updates: int = 4000
    batch_size: int = 256
    learning_rate: float = 1e-3
    target_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("num_members", "hidden_size", "num_updates", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more.")
        for name in ("learning_rate", "target_rate"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0, up to 1.")


def fit_values(episodes: Episodes, policy: Policy, config: FqeConfig, *, noise_std: float = 0.0) -> Values:
    """Fit Q of the policy on the logged transitions (Le, Voloshin and Yue, "Batch policy learning under constraints").

    The horizon is the episode: the step of the day is an input, and nothing follows the last step. noise_std: of the
    normal noise on the policy's actions, cut to [-1, 1].
    """
    n, num_steps, _ = episodes.obs.shape
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    data = _inputs(episodes, policy, rng)
    scale = max(float(episodes.rewards.std()), 1e-8)
    rewards = torch.as_tensor(episodes.rewards / scale, dtype=torch.float32)
    network, target = (_Ensemble(config.num_members, data.taken.shape[-1], config.hidden_size) for _ in range(2))
    target.load_state_dict(network.state_dict())
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    drawn = torch.as_tensor(rng.integers(0, n, (config.num_members, n)))
    size = (config.num_members, config.batch_size)
    noisy = _Noise(episodes.obs.shape[2], episodes.actions.shape[2], noise_std)
    for _ in range(config.num_updates):
        rows = torch.gather(drawn, 1, torch.randint(0, n, size))
        steps = torch.randint(0, num_steps, size)
        with torch.no_grad():
            goal = rewards[rows, steps] + target(noisy(data.next[rows, steps])) * (steps < num_steps - 1)
        loss = nn.functional.mse_loss(network(data.taken[rows, steps]), goal) * config.num_members
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, config.target_rate)
    q = _all(network, data.taken)
    v = np.mean([_all(network, noisy(data.own)) for _ in range(NUM_DRAWS if noise_std > 0.0 else 1)], axis=0)
    return Values(q * scale, v * scale)


class _Noise:
    """Adds noise to the actions among the inputs."""

    def __init__(self, first: int, num: int, std: float) -> None:
        self._columns, self._std = slice(first, first + num), std

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._std == 0.0:
            return inputs
        noisy = inputs.clone()
        actions = noisy[..., self._columns]
        noisy[..., self._columns] = (actions + self._std * torch.randn_like(actions)).clamp(-1.0, 1.0)
        return noisy


class _Inputs(NamedTuple):
    taken: torch.Tensor
    own: torch.Tensor
    next: torch.Tensor


class _Ensemble(nn.Module):
    """Members side by side: inputs [K, batch, inputs] give [K, batch]."""

    def __init__(self, num: int, inputs: int, hidden: int) -> None:
        super().__init__()
        sizes = ((inputs, hidden), (hidden, hidden), (hidden, 1))
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.randn(num, a, b) * np.sqrt((2.0 if b > 1 else 0.1) / a)) for a, b in sizes]
        )
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(num, 1, b)) for _, b in sizes])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the members' values, [K, batch]."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.relu(torch.baddbmm(bias, x, weight))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1]).squeeze(-1)


def _inputs(episodes: Episodes, policy: Policy, rng: np.random.Generator) -> _Inputs:
    """Return what the networks read, each [n, T, inputs]: observation, action, step of the day."""
    n, num_steps, size = episodes.obs.shape
    mean = episodes.obs.reshape(-1, size).mean(axis=0)
    std = np.maximum(episodes.obs.reshape(-1, size).std(axis=0), MIN_STD)

    def own(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        return policy.act(observations.reshape(-1, size), rng).reshape(n, num_steps, -1)

    def joined(observations: NDArray[np.float32], actions: NDArray[np.float32], later: int) -> torch.Tensor:
        step = np.broadcast_to(((np.arange(num_steps) + later) / num_steps)[:, None], (n, num_steps, 1))
        parts = (np.clip((observations - mean) / std, -10.0, 10.0), actions, 2.0 * step - 1.0)
        return torch.as_tensor(np.concatenate(parts, axis=2), dtype=torch.float32)

    return _Inputs(
        joined(episodes.obs, episodes.actions, 0),
        joined(episodes.obs, own(episodes.obs), 0),
        joined(episodes.new_obs, own(episodes.new_obs), 1),
    )


def _all(network: _Ensemble, inputs: torch.Tensor) -> NDArray[np.float64]:
    """Return the members' values of inputs [n, T, inputs], float64 [K, n, T]."""
    num = network.weights[0].shape[0]
    n, num_steps, size = inputs.shape
    with torch.no_grad():
        flat = inputs.reshape(1, n * num_steps, size).expand(num, -1, -1)
        values: NDArray[np.float64] = network(flat).double().numpy().reshape(num, n, num_steps)
    return values
