"""RLlib trains on the native vector environment in its own actors, and reads the datasets that GridRay writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import ENV_CREATOR, _global_registry

from gridray.datasets.record import RecordConfig, record
from gridray.envs.registration import make_parallel_env, make_vector_env
from gridray.envs.rllib import multi_agent_options, offline_data_options, register_rllib_envs
from gridray.envs.vector_env import GridVectorEnv

if TYPE_CHECKING:
    from pathlib import Path

DAYS = {"step_minutes": 60, "num_days": 10}
SMALL_NET = {"fcnet_hiddens": [16]}
# RLlib's own use of what torch, gymnasium and Ray have deprecated.
DEPRECATIONS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.usefixtures("ray_local")
@DEPRECATIONS
def test_ppo_samples_the_native_vector_env_in_an_actor() -> None:
    register_rllib_envs()
    config = (
        PPOConfig()
        .environment("gridray/VoltVar-ieee13-v0", env_config=DAYS)
        .env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=4,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=25,
        )
        .training(train_batch_size_per_learner=100, minibatch_size=50, num_epochs=1)
        .rl_module(model_config=SMALL_NET)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
        kinds = algorithm.env_runner_group.foreach_env_runner(
            lambda runner: isinstance(runner.env.unwrapped, GridVectorEnv), local_env_runner=False
        )
    finally:
        algorithm.stop()
    assert kinds == [True]
    assert result["env_runners"]["num_env_steps_sampled"] == 100
    # The first day of each environment ended: 24 steps of 25.
    assert result["env_runners"]["num_episodes"] == 4
    assert result["env_runners"]["episode_return_mean"] < 0.0
    assert np.isfinite(result["learners"]["default_policy"]["total_loss"])


@pytest.mark.usefixtures("ray_local")
@DEPRECATIONS
@pytest.mark.parametrize("agents", ["device", "zone"])
def test_ppo_trains_agents_that_share_a_policy_by_kind(agents: Literal["device", "zone"]) -> None:
    register_rllib_envs()
    env = make_parallel_env("volt_var", DAYS, agents=agents)
    options = multi_agent_options(env)
    config = (
        PPOConfig()
        .environment(f"gridray/VoltVar-ieee13-v0/{agents}", env_config=DAYS)
        .env_runners(num_env_runners=0, rollout_fragment_length=24)
        .multi_agent(**options)
        .training(train_batch_size_per_learner=24, minibatch_size=12, num_epochs=1)
        .rl_module(model_config=SMALL_NET)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    kinds = {agent.split(".")[0] for agent in env.possible_agents}
    assert options["policies"] == kinds == set(result["learners"]) - {"__all_modules__"}
    assert all(np.isfinite(result["learners"][kind]["total_loss"]) for kind in kinds)
    assert result["env_runners"]["num_episodes"] == 1


@pytest.mark.usefixtures("ray_local")
def test_unseeded_env_runners_see_different_days() -> None:
    register_rllib_envs()
    create = _global_registry.get(ENV_CREATOR, "gridray/VoltVar-ieee13-v0")
    runners = [create({**DAYS, "num_days": 365, "num_envs": 8}) for _ in range(2)]
    first, second = (runner.reset()[1]["day"] for runner in runners)
    assert (first != second).any()
    # A seed, as RLlib gives it to each runner, decides the days.
    first, second = (runner.reset(seed=4)[1]["day"] for runner in runners)
    np.testing.assert_array_equal(first, second)


@pytest.mark.usefixtures("ray_local")
@DEPRECATIONS
def test_behaviour_cloning_of_rllib_reads_our_files(tmp_path: Path) -> None:
    dataset = record(RecordConfig(task_config=DAYS, num_episodes=4, seed=1), tmp_path / "north", use_ray=False)
    env = make_vector_env("volt_var", DAYS)
    config = (
        BCConfig()
        .environment(observation_space=env.single_observation_space, action_space=env.single_action_space)
        .offline_data(**offline_data_options(dataset.files), dataset_num_iters_per_learner=1)
        .training(train_batch_size_per_learner=32)
        .rl_module(model_config=SMALL_NET)
    )
    algorithm = config.build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    learned = result["learners"]["default_policy"]
    assert np.isfinite(learned["policy_loss"])
    assert learned["num_module_steps_trained"] == 32
