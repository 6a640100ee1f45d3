"""Every task keeps what training relies on: one suite over the registry."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gridray.envs.registration import ENV_IDS
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.tasks.base import scaled_actions, set_points
from gridray.tasks.constraints import CONSTRAINT_COSTS
from gridray.tasks.fleets.regulators import Regulators
from gridray.tasks.registry import TASKS, make_task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.tasks.base import Task

SMALL = {"feeder": "ieee13", "num_days": 10, "step_minutes": 60}
EVERY_TASK = pytest.mark.parametrize("name", sorted(TASKS))


@lru_cache
def task(name: str) -> Task:
    return make_task(name, SMALL)


def random_actions(of: Task, num_envs: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (num_envs, len(of.action_channels))).astype(np.float32)


def no_op(of: Task, num_envs: int) -> NDArray[np.float32]:
    return np.repeat(scaled_actions(of.action_channels, {}), num_envs, axis=0)


def play(envs: GridVectorEnv, actions: NDArray[np.float32], num_steps: int) -> list[NDArray[np.float64]]:
    """Return observations, rewards and costs of some steps, one array [num_envs, ...] each."""
    seen = []
    for step in range(num_steps):
        observations, rewards, _, _, infos = envs.step(np.roll(actions, step, axis=1))
        costs = np.stack([infos[f"cost_{cost}"] for cost in envs.task.cost_names], axis=1)
        seen.append(np.concatenate((observations, rewards[:, None], costs), axis=1))
    return seen


def test_every_task_has_an_environment_of_its_own() -> None:
    assert {task for task, _ in ENV_IDS.values()} == set(TASKS)


@EVERY_TASK
def test_channels_spaces_and_costs_fit(name: str) -> None:
    of = task(name)
    envs = GridVectorEnv(of, 3, seed=0)
    observations, _ = envs.reset()
    assert envs.observation_space.contains(observations)
    _, _, _, _, infos = envs.step(random_actions(of, 3))
    for channels in (of.observation_channels, of.action_channels):
        names = [channel.name for channel in channels]
        assert len(set(names)) == len(names)
    assert set(CONSTRAINT_COSTS) <= set(of.cost_names)
    assert {f"cost_{cost}" for cost in of.cost_names} <= set(infos)
    assert "converged" in infos


@EVERY_TASK
def test_costs_are_finite_and_never_negative_for_a_day(name: str) -> None:
    of = task(name)
    envs = GridVectorEnv(of, 8, seed=2)
    envs.reset()
    num_observations = len(of.observation_channels)
    for rows in play(envs, random_actions(of, 8), of.num_steps):
        assert np.isfinite(rows).all()
        assert (rows[:, num_observations + 1 :] >= 0.0).all()


@EVERY_TASK
def test_seed_alone_decides_whatever_the_number_of_environments(name: str) -> None:
    of = task(name)
    actions = random_actions(of, 19)
    few, many = GridVectorEnv(of, 2, seed=5), GridVectorEnv(of, 19, seed=5)
    np.testing.assert_array_equal(few.reset(seed=5)[0], many.reset(seed=5)[0][:2])
    for first, other in zip(play(few, actions[:2], 27), play(many, actions, 27), strict=True):
        np.testing.assert_array_equal(first, other[:2])


@EVERY_TASK
def test_environments_may_be_permuted(name: str) -> None:
    of = task(name)
    order = np.array([3, 0, 4, 1, 2])
    days, seeds = of.allowed_days()[:5], np.arange(5, dtype=np.uint64)
    results = []
    for rows in (np.arange(5), order):
        state = of.new_state(5)
        of.reset(state, np.arange(5), days[rows], seeds[rows])
        for step in range(6):
            result = of.step(state, random_actions(of, 5, step)[rows])
        results.append((of.observe(state), result.rewards, *result.costs.values()))
    for given, permuted in zip(*results, strict=True):
        np.testing.assert_array_equal(given[order], permuted)


@EVERY_TASK
def test_configuration_comes_back_and_a_typo_does_not(name: str) -> None:
    of = task(name)
    assert make_task(name, json.loads(json.dumps(of.config_dict()))).config == of.config
    with pytest.raises(ConfigError, match="load_scale"):
        make_task(name, {"load_scal": 1.0})


@EVERY_TASK
def test_action_that_is_not_a_number_is_refused(name: str) -> None:
    of = task(name)
    envs = GridVectorEnv(of, 2, seed=0)
    envs.reset()
    actions = random_actions(of, 2)
    actions[1, 0] = np.nan
    with pytest.raises(ConfigError, match=f"Action '{of.action_channels[0].name}' of environment 1 is nan"):
        envs.step(actions)


@EVERY_TASK
def test_no_op_moves_nothing_and_is_safe(name: str) -> None:
    of = task(name)
    actions = no_op(of, 4)
    neutral = [np.nan if channel.neutral is None else channel.neutral for channel in of.action_channels]
    np.testing.assert_allclose(set_points(of.action_channels, actions), np.tile(neutral, (4, 1)), atol=1e-9)
    envs = GridVectorEnv(of, 4, seed=1)
    envs.reset()
    for _ in range(of.num_steps):
        observations, rewards, _, _, infos = envs.step(actions)
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        assert (infos["converged"] == 1.0).all()
        assert (infos["cost_refused_operations"] == 0.0).all()


@EVERY_TASK
def test_unsolved_power_flow_is_reported_and_never_seen_as_a_number_that_is_none(name: str, tmp_path: Path) -> None:
    # Loads that draw constant power down to 0.1 pu have no solution beyond what the feeder can carry.
    published = (resources.files("gridray.feeders") / "data" / "ieee13.yaml").read_text("utf-8")
    network, _, loads = published.partition("\nloads:\n")
    path = tmp_path / "stiff.yaml"
    path.write_text(network + "\nloads:\n" + re.sub(r"\}$", ", vmin_pu: 0.1}", loads, flags=re.MULTILINE), "utf-8")
    of = make_task(name, SMALL | {"feeder": str(path), "load_scale": 8.0})
    envs = GridVectorEnv(of, 2, seed=0)
    observations, _ = envs.reset()
    assert np.isfinite(observations).all()
    converged = []
    for _ in range(3):
        observations, rewards, _, _, infos = envs.step(random_actions(of, 2))
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        assert all(np.isfinite(infos[f"cost_{cost}"]).all() for cost in of.cost_names)
        converged.append(infos["converged"])
    assert np.mean(converged) < 1.0


@EVERY_TASK
def test_nobody_can_have_a_step_of_seven_minutes_or_negative_loads(name: str) -> None:
    wrong: list[dict[str, Any]] = [
        {"step_minutes": 7},
        {"load_scale": float("inf")},
        {"seed": -1},
        {"held_out_every": 1},
    ]
    for config in wrong:
        with pytest.raises(ConfigError, match=next(iter(config))):
            make_task(name, SMALL | config)


@EVERY_TASK
def test_a_second_reset_is_like_the_first(name: str) -> None:
    of = task(name)
    seen = []
    envs = GridVectorEnv(of, 3, seed=4)
    for _ in range(2):
        first, _ = envs.reset(seed=4)
        seen.append(np.concatenate((first.ravel(), *(rows.ravel() for rows in play(envs, random_actions(of, 3), 2)))))
    np.testing.assert_array_equal(*seen)


COUNTS = [
    (name, field)
    for name, (_, config) in TASKS.items()
    for field in config.__dataclass_fields__
    if field in {"num_pv", "num_batteries", "num_wind", "num_flexible", "num_heat_pumps"}
    and (name, field) != ("storage", "num_batteries")
]


@pytest.mark.parametrize(("name", "field"), COUNTS)
def test_fleet_may_be_empty_but_not_negative(name: str, field: str) -> None:
    config = {"step_minutes": 60, "num_days": 10, field: 0}
    envs = GridVectorEnv(make_task(name, config), 2)
    envs.reset(seed=0)
    observations, rewards, *_ = envs.step(np.zeros(envs.action_space.shape, np.float32))
    assert np.isfinite(observations).all()
    assert np.isfinite(rewards).all()
    with pytest.raises(ConfigError, match=f"{field} is -1"):
        make_task(name, config | {field: -1})


def test_regulator_of_other_steps_is_refused() -> None:
    feeder = load_feeder("ieee13")
    transformers = tuple(
        replace(t, windings=tuple(replace(winding, num_taps=16) for winding in t.windings)) for t in feeder.transformers
    )
    coarse = replace(feeder, transformers=transformers)
    with pytest.raises(ConfigError, match=r"'reg1' has taps of 0\.0125: tasks move regulators by 0\.00625"):
        Regulators(coarse, compile_feeder(coarse), 0.25)
