"""Agents per device and per zone keep PettingZoo's contract and act as the single agent does."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from gridray.envs.registration import make_parallel_env, make_vector_env
from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.tasks.registry import TASKS
from gridray.tasks.view_layout import WIDTH
from gridray.tasks.zones import distance_zones, regulator_areas

SMALL: dict[str, Any] = {"num_days": 5, "step_minutes": 60}


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("agents", ["device", "zone"])
def test_parallel_api_test_passes_without_warning(name: str, agents: Any) -> None:  # noqa: ANN401
    env = make_parallel_env(name, SMALL, agents=agents)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(env, num_cycles=60)
    # Every set-point is some agent's, and no other's.
    columns = np.concatenate(list(env._columns.values()))
    assert sorted(columns.tolist()) == list(range(len(env.task.action_channels)))


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("agents", ["device", "zone"])
def test_agents_together_are_the_single_agent(name: str, agents: Any) -> None:  # noqa: ANN401
    parallel, single = make_parallel_env(name, SMALL, agents=agents), make_vector_env(name, SMALL, 1)
    parallel.reset(seed=4, options={"day": 3})
    single.reset(seed=4, options={"days": [3]})
    single.action_space.seed(0)
    for _ in range(3):
        actions = single.action_space.sample()
        each = {agent: actions[0, columns] for agent, columns in parallel._columns.items()}
        views, rewards, _, _, infos = parallel.step(each)
        observations, reward, _, _, info = single.step(actions)
        assert set(rewards.values()) == {float(reward[0])}
        seen = single.task.views(observations)[0]
        for agent, devices in parallel._devices.items():
            np.testing.assert_array_equal(views[agent].reshape(-1, WIDTH), seen[devices])
            costs = [key for key in infos[agent] if key.startswith("cost_")]
            assert all(infos[agent][key] == info[key][0] for key in costs)
            assert costs


def test_areas_are_what_lies_between_regulators() -> None:
    # IEEE 34: regulator 1 from 814 to 814r, regulator 2 from 852 to 852r.
    areas = regulator_areas(load_feeder("ieee34"))
    assert areas["800"] == areas["814"] == 0
    assert areas["814r"] == areas["850"] == areas["852"] == 1
    assert areas["852r"] == areas["832"] == areas["840"] == 2


@pytest.mark.parametrize("num_zones", [1, 2, 5])
def test_zones_cover_the_feeder_and_are_near_their_centre(num_zones: int) -> None:
    feeder = load_feeder("ieee34")
    zones = distance_zones(feeder, num_zones)
    assert set(zones.values()) == set(range(num_zones))
    assert zones[feeder.source.bus] == 0
    # Neighbours on one line of a zone's inside: at most num_zones - 1 lines of a tree join two zones.
    joined = {frozenset((zones[line.from_bus], zones[line.to_bus])) for line in feeder.lines if not line.is_open}
    assert sum(len(pair) == 2 for pair in joined) <= num_zones - 1


def test_zones_by_distance_become_agents() -> None:
    env = make_parallel_env("volt_var", SMALL | {"feeder": "ieee34"}, agents="zone", num_zones=3)
    assert set(env.possible_agents) <= {"zone_0", "zone_1", "zone_2"}
    assert len(env.possible_agents) >= 2


def test_wrong_use_is_refused() -> None:
    env = make_parallel_env("volt_var", SMALL)
    with pytest.raises(ConfigError, match="call reset before"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"Agent 'regulator\.reg1' has no action"):
        env.step({})
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    with pytest.raises(ConfigError, match=r"action of agent 'regulator\.reg1' has shape \(3,\): give \(1,\)"):
        env.step(actions | {"regulator.reg1": np.zeros(3)})
    with pytest.raises(ConfigError, match="no agent 'ghost': give actions of regulator"):
        env.step(actions | {"ghost": np.zeros(1)})
    with pytest.raises(ConfigError, match="no option 'dya': give day"):
        env.reset(options={"dya": 3})
    with pytest.raises(ConfigError, match="num_zones is 2 but agents are devices"):
        make_parallel_env("volt_var", SMALL, num_zones=2)
    with pytest.raises(ConfigError, match="num_zones is 99"):
        make_parallel_env("volt_var", SMALL, agents="zone", num_zones=99)
    with pytest.raises(ConfigError, match="agents is 'bus'"):
        make_parallel_env("volt_var", SMALL, agents="bus")  # type: ignore[arg-type]
