"""Pendulum-v1 as a source of offline data: a swing-up controller of any quality, recorded; returns of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from gridray.algorithms.base import BATCH_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Columns = dict[str, NDArray[Any]]

EPISODE_STEPS, NUM_TESTS = 200, 10


def swing_up(observations: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return torques in [-1, 1]: pump energy, then hold the pendulum upright; observations [n, 3] of Pendulum-v1."""
    cosine, sine, speed = observations.astype(np.float64).T
    angle = np.arctan2(sine, cosine)
    missing = 15.0 - (0.5 * speed**2 + 15.0 * cosine)
    near = (cosine > 0.9) & (np.abs(speed) < 4.0)
    torque = np.where(near, -(10.0 * angle + 2.5 * speed), 2.0 * np.sign(missing) * np.where(speed >= 0.0, 1.0, -1.0))
    return np.clip(torque / 2.0, -1.0, 1.0)


def episodes(
    gain: NDArray[np.float64], is_random: NDArray[np.bool_], rng: np.random.Generator, *, noise_std: float, seed: int
) -> Columns:
    """Record one episode for each gain on the controller's torque; where is_random, torques are random instead.

    Args:
        gain: [num_episodes].
        is_random: [num_episodes].
        rng: of the noise and of random torques.
        noise_std: of the torque, of its limit.
        seed: decides starts.

    Returns:
        columns of transitions, one episode after the other.
    """
    num = len(gain)
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=num, vectorization_mode="sync")
    observations, _ = envs.reset(seed=seed)
    steps = []
    for t in range(EPISODE_STEPS):
        torque = gain * swing_up(observations) + rng.normal(0.0, noise_std, num)
        torque = np.clip(np.where(is_random, rng.uniform(-1.0, 1.0, num), torque), -1.0, 1.0)
        following, rewards, *_ = envs.step(2.0 * torque[:, None].astype(np.float32))
        row = {"obs": observations, "actions": torque[:, None], "rewards": rewards, "new_obs": following}
        is_last = np.full(num, t == EPISODE_STEPS - 1)
        steps.append(row | {"terminateds": np.zeros(num), "truncateds": is_last})
        observations = following
    envs.close()
    stacked = {name: np.stack([step[name] for step in steps], axis=1) for name in BATCH_COLUMNS}
    return {name: values.reshape(-1, *values.shape[2:]).astype(np.float32) for name, values in stacked.items()}


def mean_return(act: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> float:
    """Return the mean return from starts that are always the same; act gives torques in [-1, 1]."""
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=NUM_TESTS, vectorization_mode="sync")
    observations, _ = envs.reset(seed=10_000)
    total = np.zeros(NUM_TESTS)
    for _ in range(EPISODE_STEPS):
        observations, rewards, *_ = envs.step(2.0 * np.clip(act(observations.astype(np.float32)), -1.0, 1.0))
        total += rewards
    envs.close()
    return float(total.mean())
