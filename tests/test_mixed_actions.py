"""Actors whose actions are real numbers and choices together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transitions import SMALL, transitions

from gridray.algorithms.actions import MAX_CHOICES, action_grid
from gridray.algorithms.actors import MixedActor
from gridray.algorithms.bundle import load_bundle, save_bundle
from gridray.algorithms.networks import Mlp
from gridray.algorithms.registry import LEARNERS, make_learner
from gridray.errors import BundleError, ConfigError, GridRayError
from gridray.tasks.base import ActionChannel, set_points
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner

CHANNELS = (
    ActionChannel("tap", "step", -4, 4, "integer"),
    ActionChannel("pv", "kW", 0.0, 100.0, "continuous"),
    ActionChannel("capacitor", "1", 0.0, 1.0, "switch"),
    ActionChannel("charger", "step", 0, 3, "integer"),
    ActionChannel("kvar", "kvar", -5.0, 5.0, "continuous"),
)
LEVELS = (ActionChannel("tap", "step", 0, 32, "level"), ActionChannel("capacitor", "1", 0, 1, "level"))
MIXED = sorted(name for name, (networks, _) in LEARNERS.items() if networks.has_mixed_actions)


def learner_of(name: str, channels: tuple[ActionChannel, ...] = CHANNELS, seed: int = 0) -> Learner:
    config = SMALL | {"action_head": "mixed"}
    sizes = {"observation_size": 3, "action_size": len(channels)}
    return make_learner(name, **sizes, config=config, seed=seed, action_channels=channels)


def batch_of(channels: tuple[ActionChannel, ...], num_rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    low = [channel.low if channel.kind == "level" else -1.0 for channel in channels]
    high = [channel.high + 0.99 if channel.kind == "level" else 1.0 for channel in channels]
    actions = rng.uniform(low, high, (num_rows, len(channels)))
    actions = np.floor(actions) if channels is LEVELS else actions
    return transitions(num_rows, seed) | {"actions": actions.astype(np.float32)}


@pytest.mark.parametrize("channels", [CHANNELS, LEVELS])
def test_choice_stands_for_the_same_set_points(channels: tuple[ActionChannel, ...]) -> None:
    grid = action_grid(channels)
    actor = MixedActor(Mlp((3, grid.num_outputs)), (len(grid.continuous),), grid)
    actions = batch_of(channels, 500)["actions"]
    # Whole steps have their outermost values at the very ends only.
    actions[:2] = [[channel.low if channel.kind == "level" else -1.0 for channel in channels]] * 2
    actions[1] = [channel.high if channel.kind == "level" else 1.0 for channel in channels]
    choices = actor._choices(torch.from_numpy(actions)).numpy().astype(int)
    assert (choices.max(axis=0) == grid.num_choices - 1).all()
    assert (choices.min(axis=0) == 0).all()
    snapped = actions.copy()
    snapped[:, grid.discrete] = grid.values[np.arange(len(grid.discrete)), choices]
    np.testing.assert_array_equal(set_points(channels, snapped), set_points(channels, actions))
    seen = actor.seen_by_critics(torch.from_numpy(actions)).numpy()
    np.testing.assert_array_equal(seen[:, grid.continuous], actions[:, grid.continuous])
    assert np.abs(seen[:, grid.discrete]).max() == 1.0


def test_likelihood_is_that_of_gaussians_and_categories() -> None:
    learner: Any = learner_of("bc")
    for step in range(20):
        learner.update(batch_of(CHANNELS, 32, seed=step))
    weights, batch = learner.get_weights(), batch_of(CHANNELS, 4, seed=99)
    hidden = batch["obs"].astype(np.float64)
    for index in range(3):
        hidden = hidden @ weights[f"actor.mean.layers.{index}.weight"].T + weights[f"actor.mean.layers.{index}.bias"]
        hidden = np.maximum(hidden, 0.0) if index < 2 else hidden
    std = np.exp(weights["actor.log_std"].astype(np.float64))
    residual = (batch["actions"][:, [1, 4]] - np.tanh(hidden[:, :2])) / std
    expected = (-0.5 * residual**2 - np.log(std) - 0.5 * math.log(2 * math.pi)).sum(axis=1)
    decoded = set_points(CHANNELS, batch["actions"])
    # Nine taps from -4; open, keep, close; four steps from 0; logits are padded to nine per choice.
    state = decoded[:, 2]
    choices = np.stack([decoded[:, 0] + 4, np.where(np.isnan(state), 1, 2 * state), decoded[:, 3]], axis=1).astype(int)
    for column, num_choices in enumerate((9, 3, 4)):
        logits = hidden[:, 2 + 9 * column :][:, :num_choices]
        chosen = logits[np.arange(4), choices[:, column]]
        expected += chosen - np.log(np.exp(logits).sum(axis=1))
    assert learner.update(batch)["actor_loss"] == pytest.approx(-expected.mean(), rel=1e-4)


def first_actor_loss(channels: tuple[ActionChannel, ...], **config: object) -> float:
    sizes = {"observation_size": 3, "action_size": len(channels)}
    settings = SMALL | {"action_head": "mixed"} | config
    learner = make_learner("awr", **sizes, config=settings, action_channels=channels)
    return learner.update(batch_of(channels, 64))["actor_loss"]


def test_choices_have_a_temperature_of_their_own() -> None:
    both, real, chosen, neither = (
        first_actor_loss(CHANNELS, temperature=of_real, choice_temperature=of_choices)
        for of_real, of_choices in ((2.0, 2.0), (2.0, 0.0), (0.0, 2.0), (0.0, 0.0))
    )
    # Each part has its own weight: real numbers' and choices' shares of the loss can be swapped.
    assert both + neither == pytest.approx(real + chosen, rel=1e-5)
    assert abs(real - both) > 1e-3
    assert both == first_actor_loss(CHANNELS, temperature=2.0)
    # Where all actions are choices, 0 is cloning.
    cloned = learner_of("bc", LEVELS).update(batch_of(LEVELS, 64))["actor_loss"]
    assert first_actor_loss(LEVELS, temperature=2.0, choice_temperature=0.0) == pytest.approx(cloned, rel=1e-5)
    with pytest.raises(ConfigError, match="choice_temperature is -1"):
        first_actor_loss(CHANNELS, choice_temperature=-1.0)


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("channels", [CHANNELS, LEVELS])
def test_mixed_learner_continues_bit_for_bit(name: str, channels: tuple[ActionChannel, ...]) -> None:
    whole, stopped, resumed = (learner_of(name, channels, seed) for seed in (1, 1, 9))
    for step in range(3):
        assert whole.update(batch_of(channels, 32, step)) == stopped.update(batch_of(channels, 32, step))
    resumed.set_training_state(stopped.get_training_state())
    resumed.set_weights(stopped.get_weights())
    for step in range(3, 6):
        assert whole.update(batch_of(channels, 32, step)) == resumed.update(batch_of(channels, 32, step))
    actions = resumed.policy().act(transitions(50)["obs"], np.random.default_rng(0))
    np.testing.assert_array_equal(actions, whole.policy().act(transitions(50)["obs"], np.random.default_rng(0)))
    grid = action_grid(channels)
    for row, column in enumerate(grid.discrete):
        assert set(actions[:, column]) <= set(grid.values[row, : grid.num_choices[row]])


def test_choices_that_no_mean_can_show_are_learnt() -> None:
    # Half of the data steps to 0 and half to 32, by the sign of an observation; 16 is never right.
    learner = learner_of("bc", LEVELS)
    for step in range(150):
        batch = batch_of(LEVELS, 64, seed=step)
        batch["actions"][:, 0] = np.where(batch["obs"][:, 0] > 0.0, 32, 0)
        batch["actions"][:, 1] = batch["obs"][:, 1] > 0.0
        learner.update(batch)
    observations = transitions(400, seed=7)["obs"]
    actions = learner.policy().act(observations, np.random.default_rng(0))
    expected = np.stack([np.where(observations[:, 0] > 0.0, 32, 0), observations[:, 1] > 0.0], axis=1)
    assert (actions == expected).mean() > 0.95


def test_levels_need_a_head_of_choices() -> None:
    sizes = {"observation_size": 3, "action_size": 2}
    for name in ("bc", "td3_bc", "cql", "rllib_bc"):
        with pytest.raises(ConfigError, match=r"action 'tap' is a level.* one of awr, bc, iql, iql_lagrange"):
            make_learner(name, **sizes, action_channels=LEVELS)
    with pytest.raises(ConfigError, match="give the task's action_channels"):
        make_learner("bc", **sizes, config={"action_head": "mixed"})
    with pytest.raises(ConfigError, match="unknown key 'action_head'"):
        make_learner("cql", **sizes, config={"action_head": "mixed"}, action_channels=LEVELS)
    with pytest.raises(ConfigError, match=f"'energy' has 5001 choices, the most is {MAX_CHOICES}"):
        action_grid([ActionChannel("energy", "kWh", 0, 5000, "level")])


def test_bundle_keeps_the_mixed_head(tmp_path: Path) -> None:
    task = make_task("volt_var", {"num_days": 10})
    sizes = {"observation_size": len(task.observation_channels), "action_size": len(task.action_channels)}
    config = SMALL | {"action_head": "mixed"}
    learner = make_learner("iql", **sizes, config=config, action_channels=task.action_channels)
    save_bundle(tmp_path / "policy", learner=learner, task=task, provenance={})
    loaded = load_bundle(tmp_path / "policy")
    observations = np.random.default_rng(0).normal(size=(5, sizes["observation_size"])).astype(np.float32)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(loaded.policy.act(observations, rng), learner.policy().act(observations, rng))
    assert loaded.manifest.network.head == "mixed"
    manifest = tmp_path / "policy" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"integer"', '"continuous"').replace('"switch"', '"continuous"'))
    with pytest.raises(BundleError, match="mixed head but no action that is a choice"):
        load_bundle(tmp_path / "policy")
    manifest.write_text(text.replace('"head": "mixed"', '"head": "tanh"'))
    with pytest.raises(BundleError, match=r"array 'actor\.mean\.layers\.2"):
        load_bundle(tmp_path / "policy")
    with pytest.raises(GridRayError, match="a mixed head, and no other, has an action grid"):
        type(loaded.policy)("odd", {}, head="mixed")


def test_task_without_choices_has_the_plain_head() -> None:
    channels = (CHANNELS[1], CHANNELS[4])
    assert learner_of("bc", channels).policy().head == "tanh"
