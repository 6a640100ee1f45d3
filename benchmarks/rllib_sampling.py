"""Measure PPO's sampling through RLlib's default env runner and through ours, in one process and thread."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.tune.registry import register_env

from gridray.envs.registration import make_vector_env
from gridray.envs.rllib import register_rllib_envs
from gridray.envs.rllib_runner import ArrayEnvRunner

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_ENVS = 128
LIGHT_OBSERVATIONS, LIGHT_ACTIONS, LIGHT_STEPS = 100, 10, 96
HIDDEN = [256, 256]


class LightVectorEnv(VectorEnv[Any, Any, Any]):
    """Next to no work: observations drift with the actions' mean; what is left of a sample's time is the runner's."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        """Create num_envs environments whose episodes end together."""
        self.num_envs = num_envs
        self.single_observation_space = Box(-10.0, 10.0, (LIGHT_OBSERVATIONS,), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (LIGHT_ACTIONS,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._steps = 0
        self._seen = np.zeros((num_envs, LIGHT_OBSERVATIONS), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:  # noqa: ANN401, ARG002
        """Start anew."""
        self._steps = 0
        self._seen = np.zeros_like(self._seen)
        return self._seen, {}

    def step(self, actions: Any) -> tuple[Any, ...]:  # noqa: ANN401
        """Move on; the step after the last is a reset."""
        drift = np.asarray(actions).mean(axis=1)
        self._steps = (self._steps + 1) % (LIGHT_STEPS + 1)
        self._seen = np.clip(0.9 * self._seen + drift[:, None], -10.0, 10.0).astype(np.float32)
        truncated = np.full(self.num_envs, self._steps == LIGHT_STEPS)
        return self._seen, -np.abs(drift).astype(np.float64), np.zeros(self.num_envs, np.bool_), truncated, {}


def sampling(*, quick: bool) -> dict[str, Any]:
    """Return steps per second of both runners on a light environment and on volt-var of the 13-bus feeder."""
    register_rllib_envs()
    register_env("light", lambda context: LightVectorEnv(context["num_envs"]))
    envs = make_vector_env("volt_var", {"feeder": "ieee13"}, NUM_ENVS)
    cases = {
        "light": ("light", LightVectorEnv(NUM_ENVS)),
        "volt_var_ieee13": ("gridray/VoltVar-ieee13-v0", envs),
    }
    num_steps, repeats = (NUM_ENVS * 4, 1) if quick else (NUM_ENVS * 48, 7)
    return {name: _case(env_id, bare, num_steps, repeats) for name, (env_id, bare) in cases.items()}


def _case(env_id: str, bare: Any, num_steps: int, repeats: int) -> dict[str, Any]:  # noqa: ANN401
    config = (
        PPOConfig()
        .environment(env_id)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=NUM_ENVS, gym_env_vectorize_mode="vector_entry_point")
        .rl_module(model_config={"fcnet_hiddens": HIDDEN})
        .debugging(seed=0)
    )
    runners = {"default": SingleAgentEnvRunner(config=config), "array": ArrayEnvRunner(config=config)}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner.sample(num_timesteps=2 * NUM_ENVS)
    for _ in range(repeats):
        for name, runner in runners.items():
            times[name].append(_seconds_per_step(partial(runner.sample, num_timesteps=num_steps)))
    found: dict[str, Any] = {"num_envs": NUM_ENVS, "hidden": HIDDEN, "env_steps_per_s": round(1.0 / _env_s(bare))}
    for name, seconds in times.items():
        found[f"{name}_runner_steps_per_s"] = round(1.0 / median(seconds))
        env_share, network_share = _shares(runners[name], num_steps)
        found[f"{name}_runner_env_share"], found[f"{name}_runner_network_share"] = env_share, network_share
    found["speedup"] = round(median(times["default"]) / median(times["array"]), 2)
    found["speedups"] = [round(a / b, 2) for a, b in zip(times["default"], times["array"], strict=True)]
    return found


def _seconds_per_step(sample: Any) -> float:  # noqa: ANN401
    with torch.no_grad():
        start = time.perf_counter()
        episodes = sample()
        return (time.perf_counter() - start) / sum(len(episode) for episode in episodes)


def _shares(runner: Any, num_steps: int) -> tuple[float, float]:  # noqa: ANN401
    """Return the shares of sampling's time that pass in the environment's step and in the network."""
    spent = [0.0, 0.0]

    def counted(function: Any, number: int) -> Any:  # noqa: ANN401
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            start = time.perf_counter()
            result = function(*args, **options)
            spent[number] += time.perf_counter() - start
            return result

        return call

    env, module = runner.env.env, runner.module
    env.step, module._forward_exploration = counted(env.step, 0), counted(module._forward_exploration, 1)  # noqa: SLF001
    start = time.perf_counter()
    runner.sample(num_timesteps=num_steps)
    total = time.perf_counter() - start
    del env.step, module._forward_exploration  # noqa: SLF001
    return round(spent[0] / total, 3), round(spent[1] / total, 3)


def _env_s(envs: Any) -> float:  # noqa: ANN401
    """Return seconds of a bare environment step under random actions."""
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
    envs.step(actions)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        envs.step(actions)
        times.append(time.perf_counter() - start)
    return median(times) / envs.num_envs
