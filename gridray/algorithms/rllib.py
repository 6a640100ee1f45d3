"""Any of RLlib's offline learners behind our protocol: trained, federated and bundled like our own.

RLlib's `Learner` is used without an `Algorithm`: `config.build_learner(...)` and `Learner.update(batch=...)`. Its
networks are RLlib's defaults of the given widths; the critics of its CQL and IQL have four times our weights. Nothing
of RLlib's checkpoints, which are pickles, is read or written: weights, moments and random state are plain arrays.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.cql import CQLConfig
from ray.rllib.algorithms.iql.iql import IQLConfig
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from gridray.algorithms.base import TRAINING_COLUMNS, Normaliser, Weights
from gridray.algorithms.gradient import check_weights, denormals_as_zero, finite_tensors
from gridray.algorithms.networks import Normalisation
from gridray.algorithms.policy import Head, LearnedPolicy
from gridray.algorithms.settings import ValueSettings
from gridray.errors import ConfigError, GridRayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from torch import Tensor

    from gridray.algorithms.base import GradientTerm

MODULE = "default_policy"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class RllibAlgorithm(NamedTuple):
    """How one of RLlib's algorithms is built, and where its actor is.

    encoder, head: prefixes of the actor's layers; output: how its mean becomes an action;
    rates: names of its step sizes, all of which get our learning_rate.
    """

    config_class: type[AlgorithmConfig]
    encoder: str
    head: str
    output: Head
    rates: tuple[str, ...]


RLLIB_ALGORITHMS = {
    "rllib_bc": RllibAlgorithm(BCConfig, "_encoder.net.mlp", "_pi_head.net.mlp.0", "clip", ("lr",)),
    "rllib_marwil": RllibAlgorithm(MARWILConfig, "encoder.actor_encoder.net.mlp", "pi.net.mlp.0", "clip", ("lr",)),
    "rllib_cql": RllibAlgorithm(
        CQLConfig, "pi_encoder.net.mlp", "pi.net.mlp.0", "tanh", ("actor_lr", "critic_lr", "alpha_lr")
    ),
    "rllib_iql": RllibAlgorithm(
        IQLConfig, "pi_encoder.net.mlp", "pi.net.mlp.0", "tanh", ("actor_lr", "critic_lr", "value_lr")
    ),
}


@dataclass(frozen=True, kw_only=True)
class RllibConfig(ValueSettings):
    """Settings of RLlib's algorithms.

    target_rate: RLlib's tau, for the algorithms that have target networks.
    options: further arguments of the algorithm's `config.training(...)`, such as {beta: 1.0}.
    """

    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        if self.policy != "flat":
            raise ConfigError(f"policy is '{self.policy}': RLlib's learners have flat policies only")
        if self.device != "cpu":
            raise ConfigError(f"device is '{self.device}': RLlib's learners are trained on the cpu here")


class RllibLearner:
    """One of RLlib's learners; implements `Learner`."""

    columns = TRAINING_COLUMNS
    cost_column: str | None = None

    def __init__(self, name: str, *, observation_size: int, action_size: int, settings: RllibConfig, seed: int) -> None:
        """Build RLlib's learner; its first weights follow from the seed alone."""
        self.name = name
        self.observation_size = observation_size
        self.action_size = action_size
        self.shape = settings.policy
        self.hidden_sizes = settings.hidden_sizes
        self._algorithm = RLLIB_ALGORITHMS[name]
        self._discount = settings.discount
        self._normaliser = Normalisation(observation_size)
        self._num_updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._learner = _build(self._algorithm, settings, observation_size, action_size)
            self._random_state = torch.get_rng_state()
        self._module: Any = self._learner.module[MODULE]

    @denormals_as_zero()
    def update(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Take one step of RLlib's learner; see `Learner.update`."""
        sizes = (self.observation_size, self.action_size)
        tensors = finite_tensors(batch, self.columns, sizes, torch.device("cpu"))
        # RLlib draws from torch's global generator.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            result = self._learner.update(
                batch=self._sample_batch(tensors), timesteps={"num_env_steps_sampled_lifetime": 0}
            )
            self._random_state = torch.get_rng_state()
        losses = {key: float(value) for key, value in result[MODULE].items() if key.endswith("_loss")}
        for key, value in losses.items():
            if not math.isfinite(value):
                raise GridRayError(
                    f"{self.name}: {key} is {value} after {self._num_updates} updates, it must be finite: "
                    "lower learning_rate, or look for outliers in the dataset's rewards"
                )
        self._num_updates += 1
        return losses

    def get_weights(self) -> Weights:
        """Return copies of all weights."""
        return {name: np.atleast_1d(tensor.detach().numpy().copy()) for name, tensor in self._tensors()}

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take weights of the same names and shapes."""
        own = dict(self._tensors())
        check_weights(
            self.name, {name: tuple(np.atleast_1d(tensor.detach()).shape) for name, tensor in own.items()}, weights
        )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(torch.tensor(weights[name]).reshape(tensor.shape))

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Take the statistics as weights."""
        for name, buffer in self._normaliser.named_buffers():
            buffer.copy_(torch.as_tensor(getattr(normaliser, name)).reshape(buffer.shape))

    def observation_rows(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the observations; see `Learner.observation_rows`."""
        return observations

    def get_training_state(self) -> Weights:
        """Return the optimisers' moments, the count of updates and the random numbers' state."""
        state: Weights = {
            "num_updates": np.array([self._num_updates], dtype=np.int64),
            "generator": self._random_state.numpy().copy(),
        }
        for name, optimiser, index, parameter in self._parameters():
            for key, tensor in optimiser.state.get(parameter, {}).items():
                state[f"{key}.{name}.{index}"] = np.atleast_1d(tensor.numpy().copy())
        return state

    def set_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the state that `get_training_state` returned."""
        self._num_updates = int(state["num_updates"][0])
        self._random_state = torch.tensor(state["generator"])
        for name, optimiser, index, parameter in self._parameters():
            optimiser.state.pop(parameter, None)
            if f"step.{name}.{index}" in state:
                arrays = {key: torch.tensor(state[f"{key}.{name}.{index}"]) for key in _MOMENTS}
                shapes = {key: () if key == "step" else parameter.shape for key in _MOMENTS}
                optimiser.state[parameter] = {key: array.reshape(shapes[key]) for key, array in arrays.items()}

    def reset_optimiser(self) -> None:
        """Forget the optimisers' moments."""
        for _, optimiser, _, parameter in self._parameters():
            optimiser.state.pop(parameter, None)

    def set_gradient_terms(self, terms: Sequence[GradientTerm]) -> None:
        """Refuse terms: RLlib computes and applies gradients in one call."""
        if terms:
            raise GridRayError(f"{self.name} takes no gradient terms (FedProx, SCAFFOLD, Ditto): use another learner")

    def state_values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refuse: RLlib's critics are not read."""
        raise GridRayError(f"{self.name} gives no values for {len(observations)} states: use one of our learners")

    def policy(self) -> LearnedPolicy:
        """Return the actor's mean action."""
        weights = self.get_weights()
        algorithm = self._algorithm
        own = {f"normaliser.{part}": weights[f"normaliser.{part}"] for part in ("observation_mean", "observation_std")}
        layers = [f"{algorithm.encoder}.{2 * index}" for index in range(len(self.hidden_sizes))]
        for index, layer in enumerate([*layers, algorithm.head]):
            for part in ("weight", "bias"):
                own[f"actor.mean.layers.{index}.{part}"] = weights[f"{layer}.{part}"]
        last = f"actor.mean.layers.{len(layers)}"
        # The head's first outputs are the means, the others the spreads.
        own |= {f"{last}.{part}": own[f"{last}.{part}"][: self.action_size].copy() for part in ("weight", "bias")}
        return LearnedPolicy(self.name, own, head=algorithm.output)

    def _sample_batch(self, tensors: dict[str, Tensor]) -> MultiAgentBatch:
        num_rows = len(tensors["rewards"])
        rows = {
            "obs": self._normaliser.observations(tensors["obs"]),
            "new_obs": self._normaliser.observations(tensors["new_obs"]),
            "actions": tensors["actions"],
            "rewards": self._normaliser.rewards(tensors["rewards"]),
            "terminateds": tensors["terminateds"].bool(),
            "truncateds": torch.zeros(num_rows, dtype=torch.bool),
            "weights": torch.ones(num_rows),
            "n_step": torch.ones(num_rows),
        }
        if self.name == "rllib_marwil":
            # One-step targets: RLlib makes its own from whole episodes.
            with torch.no_grad():
                following = self._module.compute_values({"obs": rows["new_obs"]})
            rows["value_targets"] = rows["rewards"] + self._discount * (1.0 - tensors["terminateds"]) * following
        return MultiAgentBatch({MODULE: SampleBatch(rows)}, env_steps=num_rows)  # type: ignore[no-untyped-call]

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Return every array that training changes, and the normaliser's."""
        yield from ((f"normaliser.{name}", buffer) for name, buffer in self._normaliser.named_buffers())
        yield from self._module.state_dict().items()
        if self.name == "rllib_cql":
            yield "log_alpha", self._learner.curr_log_alpha[MODULE]
        if self.name == "rllib_marwil":
            yield "advantage_square", self._learner.moving_avg_sqd_adv_norms_per_module[MODULE]

    def _parameters(self) -> Iterator[tuple[str, torch.optim.Optimizer, int, Tensor]]:
        """Return name of optimiser, optimiser, number, parameter."""
        for name, optimiser in self._learner._named_optimizers.items():  # noqa: SLF001  # there is no public name
            numbers = count()
            for group in optimiser.param_groups:
                yield from ((name, optimiser, next(numbers), parameter) for parameter in group["params"])


def _build(algorithm: RllibAlgorithm, settings: RllibConfig, observation_size: int, action_size: int) -> Any:  # noqa: ANN401
    """Return RLlib's learner."""
    observations = Box(-np.inf, np.inf, (observation_size,), np.float32)
    actions = Box(-1.0, 1.0, (action_size,), np.float32)
    training: dict[str, Any] = {"gamma": settings.discount, "grad_clip": settings.max_grad_norm, "lr": None}
    training |= dict.fromkeys(algorithm.rates, settings.learning_rate)
    if "critic_lr" in algorithm.rates:
        training |= {"tau": settings.target_rate, "target_network_update_freq": 0}
    if algorithm.config_class is CQLConfig:
        # No updates of pure cloning first: they are counted outside of what can be saved.
        training["bc_iters"] = 0
    model = DefaultModelConfig(
        fcnet_hiddens=list(settings.hidden_sizes),
        fcnet_activation="relu",
        head_fcnet_hiddens=[],
        vf_share_layers=False,
    )
    # RLlib warns about its own use of what it has deprecated.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("ray.rllib").setLevel(logging.ERROR)
        config = algorithm.config_class().environment(observation_space=observations, action_space=actions)
        config = config.learners(num_learners=0).rl_module(model_config=model)
        try:
            config = config.training(**(training | settings.options))
        except TypeError as error:
            raise ConfigError(f"options {settings.options}: {error}") from error
        spaces = (observations, actions)
        return config.build_learner(spaces={MODULE: spaces, "__env__": spaces, "__env_single__": spaces})
