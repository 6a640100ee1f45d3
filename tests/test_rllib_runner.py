"""The array runner samples what RLlib's default runner samples, and trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from gridray.envs.rllib import register_rllib_envs
from gridray.envs.rllib_runner import COSTS, ArrayEnvRunner
from gridray.envs.rollout_arrays import RolloutArrays, episode_cuts
from gridray.errors import ConfigError
from gridray.tasks.volt_var import VoltVar

if TYPE_CHECKING:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

DAYS = {"step_minutes": 60, "num_days": 10}
NUM_ENVS = 5
# RLlib's own use of what torch, gymnasium and Ray have deprecated.
DEPRECATIONS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
pytestmark = [pytest.mark.usefixtures("ray_local"), DEPRECATIONS]


def config(**options: Any) -> PPOConfig:
    register_rllib_envs()
    return (
        PPOConfig()
        .environment("gridray/VoltVar-ieee13-v0", env_config=DAYS, **options)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=NUM_ENVS, gym_env_vectorize_mode="vector_entry_point")
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=7)
    )


def sampled(kind: type[SingleAgentEnvRunner], sizes: list[int], *, explore: bool = True, **options: Any) -> Any:  # noqa: ANN401
    """Return what a runner samples, call by call, and its metrics; the seed fixes weights, days and noise."""
    runner = kind(config=config(**options), worker_index=0)
    torch.manual_seed(3)
    calls = [runner.sample(num_timesteps=size, explore=explore) for size in sizes]
    return calls, runner.get_metrics()


def assert_same(first: SingleAgentEpisode, second: SingleAgentEpisode) -> None:
    assert (first.t_started, first.t, len(first)) == (second.t_started, second.t, len(second))
    assert (first.is_terminated, first.is_truncated) == (second.is_terminated, second.is_truncated)
    for read in ("get_observations", "get_actions", "get_rewards"):
        expected, given = getattr(first, read)(), getattr(second, read)()
        np.testing.assert_array_equal(given, expected)
        assert given.dtype == expected.dtype
    assert first.extra_model_outputs.keys() | {COSTS} == second.extra_model_outputs.keys()
    for name in first.extra_model_outputs:
        np.testing.assert_array_equal(second.get_extra_model_outputs(name), first.get_extra_model_outputs(name))
    # The default runner has the costs in a dictionary a step.
    names = [f"cost_{name}" for name in VoltVar.cost_names]
    expected = np.array([[info[name] for name in names] for info in first.get_infos()[1:]])
    np.testing.assert_array_equal(second.get_extra_model_outputs(COSTS), expected)
    assert expected.any()


@pytest.mark.parametrize(
    ("explore", "options"),
    [(True, {}), (False, {}), (True, {"normalize_actions": False, "clip_actions": True})],
    ids=["explore", "greedy", "clipped"],
)
def test_episodes_are_those_of_the_default_runner_step_by_step(explore: bool, options: dict[str, Any]) -> None:  # noqa: FBT001
    # 24 steps a day and a reset row: 61 transitions of 5 environments cut days at odd places, thrice.
    sizes = [61, 61, 200]
    expected, expected_metrics = sampled(SingleAgentEnvRunner, sizes, explore=explore, **options)
    given, metrics = sampled(ArrayEnvRunner, sizes, explore=explore, **options)
    ids: dict[str, str] = {}
    for size, ours, theirs in zip(sizes, given, expected, strict=True):
        assert size <= sum(len(episode) for episode in ours) < size + NUM_ENVS
        assert len(ours) == len(theirs)
        for first, second in zip(theirs, ours, strict=True):
            assert_same(first, second)
            assert ids.setdefault(first.id_, second.id_) == second.id_
    assert len(set(ids.values())) == len(ids) > NUM_ENVS
    for name in (
        "num_env_steps_sampled",
        "num_env_steps_sampled_lifetime",
        "num_episodes",
        "num_episodes_lifetime",
        "episode_return_mean",
        "episode_len_mean",
    ):
        assert float(metrics[name]) == pytest.approx(float(expected_metrics[name])), name
    assert float(metrics["episode_duration_sec_mean"]) > 0.0


def test_logp_is_that_of_the_kept_action() -> None:
    runner = ArrayEnvRunner(config=config(), worker_index=0)
    for episode in runner.sample(num_timesteps=40, explore=True):
        inputs = torch.from_numpy(episode.get_extra_model_outputs(Columns.ACTION_DIST_INPUTS))
        kind = runner.module.get_exploration_action_dist_cls()
        logp = kind.from_logits(inputs).logp(torch.from_numpy(episode.get_actions()))
        np.testing.assert_array_equal(logp.numpy(), episode.get_extra_model_outputs(Columns.ACTION_LOGP))


def test_whole_episodes_are_the_default_runners_and_days_start_anew_after_them() -> None:
    runner = ArrayEnvRunner(config=config(), worker_index=0)
    runner.sample(num_timesteps=30)
    episodes = runner.sample(num_episodes=3)
    assert [len(episode) for episode in episodes] == [24, 24, 24]
    assert all(episode.is_done for episode in episodes)
    assert all(episode.t_started == 0 for episode in runner.sample(num_timesteps=30))
    assert len(runner.sample(num_timesteps=30, random_actions=True)) >= NUM_ENVS
    assert runner.sample(num_timesteps=0) == []


def test_costs_reach_the_learner_step_by_step() -> None:
    runner = ArrayEnvRunner(config=config(), worker_index=0)
    episodes = runner.sample(num_timesteps=130)
    expected = np.concatenate([episode.get_extra_model_outputs(COSTS) for episode in episodes])
    learner = config().build_learner(env=runner.env.env)
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=episodes, explore=False, shared_data={}, metrics=learner.metrics
    )
    learned = batch["default_policy"]
    # PPO adds a row to each episode, which it leaves out of the loss.
    assert len(learned[Columns.OBS]) == len(expected) + len(episodes)
    np.testing.assert_allclose(learned[COSTS][learned[Columns.LOSS_MASK]].numpy(), expected, rtol=1e-6)


def test_ppo_trains_through_the_array_runner_in_an_actor() -> None:
    settings = (
        config()
        .env_runners(env_runner_cls=ArrayEnvRunner, num_env_runners=1, rollout_fragment_length=24)
        .training(train_batch_size_per_learner=120, minibatch_size=60, num_epochs=1)
    )
    algorithm = settings.build_algo()
    try:
        result = algorithm.train()
    finally:
        algorithm.stop()
    sampled_by = result["env_runners"]
    assert sampled_by["num_env_steps_sampled"] == 120
    assert sampled_by["num_episodes"] == NUM_ENVS
    assert sampled_by["episode_len_mean"] == 24
    assert np.isfinite(result["learners"]["default_policy"]["total_loss"])


class CountsSteps(RLlibCallback):
    """A callback at every step."""

    def on_episode_step(self, **kwargs: Any) -> None:
        """Do something at every step, which arrays have no place for."""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.callbacks(CountsSteps), "on_episode_step"),
        (lambda c: c.callbacks(on_episode_end=print), "on_episode_end"),
        (lambda c: c.env_runners(episodes_to_numpy=False), "episodes_to_numpy"),
        (lambda c: c.env_runners(gym_env_vectorize_mode="sync"), None),
        (lambda c: c.rl_module(model_config={"use_lstm": True, "fcnet_hiddens": [8]}), "state"),
        (lambda c: c.env_runners(add_default_connectors_to_module_to_env_pipeline=False), "default connectors"),
    ],
)
def test_what_arrays_cannot_do_is_refused_and_the_default_runner_named(change: Any, reason: str | None) -> None:  # noqa: ANN401
    if reason is None:
        # Gymnasium's own vector of single environments resets in the next step, too.
        assert ArrayEnvRunner(config=change(config()), worker_index=0).sample(num_timesteps=10)
        return
    with pytest.raises(ConfigError, match=rf"{reason}.*leave env_runner_cls out"):
        ArrayEnvRunner(config=change(config()), worker_index=0)


def test_cuts_skip_resets_and_keep_the_order_of_ends() -> None:
    skip = np.array([[0, 1], [0, 0], [1, 0], [0, 0]], dtype=np.bool_)
    ended = np.array([[0, 1], [1, 0], [0, 0], [0, 1]], dtype=np.bool_)
    # Environment 0 ends after rows 0..1 and begins anew at 3; environment 1 begins at 1 (its row 0 is a reset).
    assert list(episode_cuts(skip, ended)) == [(0, 0, 2, True), (1, 1, 4, True), (0, 3, 4, False), (1, 5, 4, False)]


def test_arrays_grow_beyond_their_room() -> None:
    arrays = RolloutArrays(1)
    for row in range(9):
        arrays.write(row, obs=np.full(2, row), reward=np.float64(row))
        arrays.num_rows = row
    done = arrays.finished(extra=("obs",))
    assert done["obs"].tolist() == [[row, row] for row in range(9)]
    assert done["reward"].tolist() == list(range(8))
