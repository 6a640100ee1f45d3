"""An RLlib env runner that keeps rollouts in arrays: what the default one samples, several times as fast."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import RLMODULE_INFERENCE_TIMER, WEIGHTS_SEQ_NO
from ray.rllib.utils.spaces.space_utils import clip_action, unsquash_action

from gridray.envs.rollout_arrays import RolloutArrays, episode_cuts
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from gymnasium import Space
    from numpy.typing import NDArray

DEFAULT_CONNECTORS = {
    "AddObservationsFromEpisodesToBatch",
    "AddStatesFromEpisodesToBatch",
    "AddTimeDimToBatchAndZeroPad",
    "BatchIndividualItems",
    "GetActions",
    "ListifyDataForVectorEnv",
    "NormalizeAndClipActions",
    "NumpyToTensor",
    "RemoveSingleTsTimeRankFromBatch",
    "TensorToNumpy",
    "UnBatchToIndividualItems",
}
"""What RLlib puts between environment and module; `_act` does the same on whole arrays."""
COSTS = "costs"
"""Column [T, C] of the costs of each step, in the order of `GridVectorEnv.cost_names`, beside the module's outputs."""
OWN = frozenset({"obs", "rewards", "terminated", "truncated", "skip", Columns.ACTIONS})
"""Columns that are no outputs of the module."""
EPISODE_CALLBACKS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")


class ArrayEnvRunner(SingleAgentEnvRunner):
    """Samples a native vector environment into arrays and cuts episodes out of them.

    Use it with `config.env_runners(env_runner_cls=ArrayEnvRunner, gym_env_vectorize_mode="vector_entry_point")`.
    Observations, actions, log-probabilities, rewards, cuts and metrics are those of RLlib's default runner with the
    same seed and weights (`tests/test_rllib_runner.py`). Chunks carry no look-back rows and empty infos; costs are a
    column beside the module's outputs, COSTS, which learners find in their batches.
    Sampling by episodes or at random is the default runner's; the environments are reset before and after it.
    It overrides a private method: tied to the Ray version in pyproject.toml.
    """

    env: Any
    module: Any
    _env_to_module: Any
    _module_to_env: Any

    def __init__(self, *, config: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Create the runner.

        Raises:
            ConfigError: the configuration asks for what array rollouts cannot do; it names the default runner.
        """
        super().__init__(config=config, **kwargs)
        self._pending: NDArray[np.bool_] = np.zeros(self.num_envs, dtype=np.bool_)
        self._seen: NDArray[Any] = np.zeros(0)
        self._ids: list[str | None] = [None] * self.num_envs
        self._t_started: NDArray[np.int64] = np.zeros(self.num_envs, dtype=np.int64)
        self._struct: Any = None
        self._blank: Any = None
        self._cost_columns: list[str] = []
        self._low = self._high = self._span = None
        if self.env is not None:
            self._check_supported()
            self._struct = space = self.env.single_action_space
            self._blank = _blank_episode(self.env.single_observation_space, space)
            if self.config.normalize_actions and isinstance(space, Box) and space.is_bounded():
                self._low, self._high, self._span = space.low, space.high, space.high - space.low
            self._cost_columns = [f"cost_{name}" for name in getattr(self.env.env, "cost_names", ())]

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        """Sample at least num_timesteps transitions, or whole episodes by the default runner."""
        if num_timesteps is None or random_actions:
            self._needs_initial_reset = True
            episodes: list[SingleAgentEpisode] = super()._sample(
                num_timesteps=num_timesteps, num_episodes=num_episodes, explore=explore, random_actions=random_actions
            )
            self._needs_initial_reset = True
            return episodes
        if force_reset or self._needs_initial_reset:
            self._start()
        if num_timesteps < 1:
            return []
        rollout = self._roll(num_timesteps, explore=explore)
        done, ongoing = self._episodes(rollout)
        self._done_episodes_for_metrics.extend(done)
        for episode in ongoing:
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
        num_steps = int((~rollout["skip"]).sum())
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=num_steps)
        self._increase_sampled_metrics(num_steps, len(done))  # type: ignore[no-untyped-call]
        return done + ongoing

    def _start(self) -> None:
        """Reset all environments; RLlib's seed counts for the first reset."""
        self._ongoing_episodes_for_metrics.clear()
        seed = self._seed if self._needs_initial_reset else None
        self._seen, _ = self._try_env_reset(seed=seed, options=None)
        self._needs_initial_reset = False
        self._pending = np.zeros(self.num_envs, dtype=np.bool_)
        self._ids = [None] * self.num_envs
        self._t_started = np.zeros(self.num_envs, dtype=np.int64)

    def _roll(self, num_timesteps: int, *, explore: bool) -> dict[str, NDArray[Any]]:
        """Step until num_timesteps transitions are there; return arrays [num_rows, num_envs, ...] by name."""
        # The environment itself: RLlib's wrapper makes a dictionary of infos per environment and step.
        step = self.env.env.step
        arrays = RolloutArrays(num_timesteps // self.num_envs + 2)
        num_steps, acting_s = 0, 0.0
        arrays.write(0, obs=self._seen, seconds=np.float64(time.perf_counter()))
        was_training = self.module.training
        self.module.eval()
        while num_steps < num_timesteps:
            began = time.perf_counter()
            to_env, columns = self._act(self._seen, num_steps, explore=explore)
            acting_s += time.perf_counter() - began
            skip = self._pending
            self._seen, rewards, terminated, truncated, infos = step(to_env)
            self._pending = (terminated | truncated) & ~skip
            if self._cost_columns:
                columns[COSTS] = np.array([infos[name] for name in self._cost_columns]).T
            arrays.write(
                arrays.num_rows, skip=skip, rewards=rewards, terminated=terminated, truncated=truncated, **columns
            )
            arrays.write(arrays.num_rows + 1, obs=self._seen, seconds=np.float64(time.perf_counter()))
            arrays.num_rows += 1
            num_steps += self.num_envs - int(skip.sum())
        self.module.train(was_training)
        rollout = arrays.finished(extra=("obs", "seconds"))
        if Columns.ACTION_LOGP not in rollout:
            began = time.perf_counter()
            rollout[Columns.ACTION_LOGP] = _normal_logp(rollout[Columns.ACTION_DIST_INPUTS], rollout[Columns.ACTIONS])
            acting_s += time.perf_counter() - began
        self.metrics.log_value(RLMODULE_INFERENCE_TIMER, acting_s / arrays.num_rows)
        return rollout

    def _act(
        self, observations: NDArray[Any], num_steps: int, *, explore: bool
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Return actions as the environment wants them, and what an episode keeps: actions and the module's outputs.

        The module evaluates already: its public methods would switch it to that and back in every step.
        """
        batch = {Columns.OBS: torch.from_numpy(np.ascontiguousarray(observations)).to(self._device)}
        module = self.module
        with torch.inference_mode():
            if explore:
                runners = self.config.num_env_runners or 1
                t = (self.num_env_steps_sampled_lifetime // runners + num_steps) * runners
                out = dict(module._forward_exploration(batch, t=t))  # noqa: SLF001
            else:
                out = dict(module._forward_inference(batch))  # noqa: SLF001
            if Columns.ACTIONS not in out:
                kind = module.get_exploration_action_dist_cls() if explore else module.get_inference_action_dist_cls()
                inputs = out[Columns.ACTION_DIST_INPUTS]
                if explore and kind is TorchDiagGaussian:
                    # What its `sample` does; `_roll` adds the log-probabilities of all steps at once.
                    mean, log_std = inputs.chunk(2, dim=-1)
                    out[Columns.ACTIONS] = torch.normal(mean, log_std.exp())
                else:
                    chosen = kind.from_logits(inputs) if explore else kind.from_logits(inputs).to_deterministic()
                    out[Columns.ACTIONS] = chosen.sample()
                    out.setdefault(Columns.ACTION_LOGP, chosen.logp(out[Columns.ACTIONS]))
        columns = {name: value.cpu().numpy() for name, value in out.items() if isinstance(value, torch.Tensor)}
        actions = columns[Columns.ACTIONS]
        if self._span is not None:
            return np.clip(self._low + (actions + 1.0) * self._span / 2.0, self._low, self._high), columns
        if self.config.normalize_actions:
            return unsquash_action(actions, self._struct), columns  # type: ignore[no-untyped-call]
        if self.config.clip_actions:
            return clip_action(actions, self._struct), columns  # type: ignore[no-untyped-call]
        return actions, columns

    def _episodes(self, rollout: dict[str, NDArray[Any]]) -> tuple[list[SingleAgentEpisode], list[SingleAgentEpisode]]:
        """Cut a rollout into episodes that ended, in the order of their end, and chunks of those that go on."""
        seconds = rollout.pop("seconds")
        by_env = {name: np.swapaxes(value, 0, 1) for name, value in rollout.items()}
        ended = rollout["terminated"] | rollout["truncated"]
        done: list[SingleAgentEpisode] = []
        ongoing: list[SingleAgentEpisode] = []
        for env, first, last, is_done in episode_cuts(rollout["skip"], ended):
            if first < last:
                episode: Any = self._episode(by_env, env, first, last)
                episode._start_time, episode._last_step_time = float(seconds[first]), float(seconds[last])  # noqa: SLF001
                (done if is_done else ongoing).append(episode)
                self._ids[env] = episode.id_
                self._t_started[env] += last - first
            if is_done or first >= last:
                self._ids[env], self._t_started[env] = None, 0
        return done, ongoing

    def _episode(self, by_env: dict[str, NDArray[Any]], env: int, first: int, last: int) -> SingleAgentEpisode:
        """Return an episode of rows first to last of arrays [num_envs, num_rows, ...]."""
        blank, num_steps = self._blank, last - first
        episode: Any = SingleAgentEpisode.__new__(SingleAgentEpisode)
        for name in SingleAgentEpisode.__slots__:
            setattr(episode, name, getattr(blank, name))
        episode.id_ = self._ids[env] or uuid.uuid4().hex
        episode.observations = _buffer(blank.observations, by_env["obs"][env, first : last + 1])
        episode.infos = _buffer(blank.infos, [{}] * (num_steps + 1))
        episode.actions = _buffer(blank.actions, by_env[Columns.ACTIONS][env, first:last])
        episode.rewards = _buffer(blank.rewards, by_env["rewards"][env, first:last])
        episode.is_terminated = bool(by_env["terminated"][env, last - 1])
        episode.is_truncated = bool(by_env["truncated"][env, last - 1])
        episode.extra_model_outputs = {
            name: _buffer(blank.rewards, value[env, first:last]) for name, value in by_env.items() if name not in OWN
        }
        numbers = _buffer(blank.rewards, np.full(num_steps, self._weights_seq_no))
        episode.extra_model_outputs[WEIGHTS_SEQ_NO] = numbers
        episode._custom_data = {}  # noqa: SLF001
        episode.t_started = int(self._t_started[env])
        episode.t = episode.t_started + num_steps
        return episode  # type: ignore[no-any-return]

    def _check_supported(self) -> None:
        env, config = self.env, self.config
        connectors = [*self._env_to_module.connectors, *self._module_to_env.connectors]
        own = sorted({type(connector).__name__ for connector in connectors} - DEFAULT_CONNECTORS)
        callbacks = [
            name
            for name in EPISODE_CALLBACKS
            if getattr(config, f"callbacks_{name}", None)
            or any(getattr(type(made), name) is not getattr(RLlibCallback, name) for made in self._callbacks)
        ]
        reasons = {
            "an environment without next-step autoreset": env.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP,
            "observations other than a box": not isinstance(env.single_observation_space, Box),
            "actions other than a box or levels": not isinstance(
                env.single_action_space, (Box, Discrete, MultiDiscrete)
            ),
            f"connectors of your own ({', '.join(own)})": bool(own),
            "pipelines without RLlib's default connectors": len({type(c) for c in connectors})
            < len(DEFAULT_CONNECTORS),
            f"callbacks per episode ({', '.join(callbacks)})": bool(callbacks),
            "episodes as lists (episodes_to_numpy=False)": not self.episodes_to_numpy,
            "no module, or one with a state": self.module is None or self.module.is_stateful(),
        }
        for reason, holds in reasons.items():
            if holds:
                raise ConfigError(f"ArrayEnvRunner cannot sample with {reason}: leave env_runner_cls out.")


def _blank_episode(observation_space: Space[Any], action_space: Space[Any]) -> SingleAgentEpisode:
    """Return an episode without a step, whose attributes others begin with.

    Constructors take long: they work out the structure of spaces and count the rows of all buffers several times.
    """
    return SingleAgentEpisode(
        observations=InfiniteLookbackBuffer(np.zeros((1, 0))),
        observation_space=observation_space,
        infos=InfiniteLookbackBuffer([{}]),
        actions=InfiniteLookbackBuffer(np.zeros((0, 0))),
        action_space=action_space,
        rewards=InfiniteLookbackBuffer(np.zeros(0)),
        len_lookback_buffer=0,
    )


def _buffer(blank: InfiniteLookbackBuffer, rows: NDArray[Any] | list[dict[str, Any]]) -> InfiniteLookbackBuffer:
    buffer = InfiniteLookbackBuffer.__new__(InfiniteLookbackBuffer)
    buffer.__dict__ = vars(blank) | {"data": rows}
    return buffer


def _normal_logp(inputs: NDArray[np.float32], actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the log-probabilities of a Gaussian's actions [..., num_actions]; inputs: means, then log deviations."""
    with torch.inference_mode():
        gaussian = TorchDiagGaussian.from_logits(torch.from_numpy(inputs))
        logp: Any = gaussian.logp(torch.from_numpy(actions))
    return logp.numpy()  # type: ignore[no-any-return]
