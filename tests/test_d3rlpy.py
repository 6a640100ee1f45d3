"""From the same weights and rows a step of TD3+BC's and ReBRAC's critics is d3rlpy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transitions import ACTIONS, OBSERVATIONS, learner_of, transitions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Weights = Mapping[str, NDArray[Any]]

HIDDEN = [16, 16]


def theirs(d3rlpy: Any, name: str, weights: Weights) -> Any:  # noqa: ANN401
    """Return d3rlpy's algorithm without noise, with these weights."""
    factory = d3rlpy.models.encoders.VectorEncoderFactory
    shared = {
        "gamma": 0.95,
        "actor_learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "target_smoothing_sigma": 0.0,
        "actor_encoder_factory": factory(HIDDEN),
        "critic_encoder_factory": factory(HIDDEN, use_layer_norm=name == "rebrac"),
    }
    kind = d3rlpy.algos.TD3PlusBCConfig if name == "td3_bc" else d3rlpy.algos.ReBRACConfig
    algorithm = kind(**shared, **({} if name == "td3_bc" else {"critic_beta": 0.2})).create(device="cpu:0")
    algorithm.create_impl((OBSERVATIONS,), ACTIONS)
    modules = algorithm.impl.modules
    for critics, prefix in ((modules.q_funcs, "critic"), (modules.targ_q_funcs, "target_critic")):
        for index, critic in enumerate(critics):
            for own, array in zip(critic.parameters(), of_critic(weights, prefix, index), strict=True):
                own.data.copy_(torch.from_numpy(array))
    for own, array in zip(modules.targ_policy.parameters(), of_actor(weights, "target_actor"), strict=True):
        own.data.copy_(torch.from_numpy(array))
    return algorithm


def of_critic(weights: Weights, prefix: str, index: int) -> list[NDArray[Any]]:
    """Return one critic's arrays in d3rlpy's order and shape: weight, bias, and gain and shift where there are any."""
    arrays = []
    for layer in range(3):
        arrays += [weights[f"{prefix}.kernels.{layer}"][index].T, weights[f"{prefix}.biases.{layer}"][index, 0]]
        if f"{prefix}.gains.{layer}" in weights:
            arrays += [weights[f"{prefix}.{part}.{layer}"][index, 0] for part in ("gains", "shifts")]
    return [np.ascontiguousarray(array) for array in arrays]


def of_actor(weights: Weights, prefix: str) -> list[NDArray[Any]]:
    return [weights[f"{prefix}.mean.layers.{layer}.{part}"] for layer in range(3) for part in ("weight", "bias")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["td3_bc", "rebrac"])
def test_critics_step_is_that_of_d3rlpy(name: str) -> None:
    d3rlpy = pytest.importorskip("d3rlpy")
    penalty = {} if name == "td3_bc" else {"critic_penalty": 0.2}
    ours = learner_of(name, hidden_sizes=HIDDEN, learning_rate=1e-3, discount=0.95, target_noise=0.0, **penalty)
    for seed in range(3):
        ours.update(transitions(32, seed=seed))
    ours.reset_optimiser()
    algorithm = theirs(d3rlpy, name, ours.get_weights())
    rows = transitions(32, seed=9)
    rows |= {"has_new_actions": np.ones(32, dtype=np.float32)}
    loss = ours.update(rows)["critic_loss"]
    column = {name: rows[name].astype(np.float32).reshape(32, 1) for name in ("rewards", "terminateds")}
    batch = d3rlpy.dataset.TransitionMiniBatch(
        observations=rows["obs"],
        actions=rows["actions"],
        rewards=column["rewards"],
        next_observations=rows["new_obs"],
        next_actions=rows["new_actions"],
        terminals=column["terminateds"],
        intervals=np.ones((32, 1), dtype=np.float32),
        transitions=[],
    )
    assert algorithm.update(batch)["critic_loss"] == pytest.approx(loss, rel=1e-5)
    after = ours.get_weights()
    for index, critic in enumerate(algorithm.impl.modules.q_funcs):
        for own, array in zip(critic.parameters(), of_critic(after, "critic", index), strict=True):
            np.testing.assert_allclose(own.detach(), array, atol=1e-5)
