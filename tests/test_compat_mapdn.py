"""MAPDN's tasks follow the original's definition on its grids."""

from __future__ import annotations

import csv
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import parallel_api_test

from gridray.compat.base import Run
from gridray.compat.mapdn import Mapdn, MapdnConfig, voltage_barrier
from gridray.compat.mapdn_data import GRIDS, read_grid
from gridray.compat.mapdn_scores import ANCHOR, episodes
from gridray.envs.multi_agent import GridParallelEnv
from gridray.envs.single import GridEnv
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import ConfigError
from gridray.physics.compiled import compile_feeder
from gridray.physics.powerflow import solve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def data(reference_dir: Path) -> Path:
    """Folder of the grids' tables."""
    path = reference_dir / "matpower"
    if not path.is_dir():
        pytest.skip(f"no grids at '{path}': set GRIDRAY_REFERENCE_DIR to the folder that has them")
    return path


@pytest.fixture(scope="module")
def task(data: Path) -> Mapdn:
    """33 buses, two days, no noise."""
    return Mapdn(MapdnConfig(grid="33", data=str(data), num_days=2, noise=False))


@pytest.mark.parametrize("name", GRIDS)
def test_grids_have_the_published_voltages_zones_and_sites(name: str, data: Path) -> None:
    grid_data = read_grid(name, data, profiles=None, num_days=1, seed=0, noise=False)
    assert len(set(grid_data.zone.tolist()) - {-1}) == GRIDS[name].num_zones
    assert len(set(grid_data.pv_bus.tolist())) == GRIDS[name].num_pv
    assert (grid_data.zone[grid_data.pv_bus] >= 0).all()
    grid = compile_feeder(grid_data.feeder)
    none = np.zeros(len(grid.generator_names))
    result = solve(grid, generator_kw=none, generator_kvar=none)
    found = dict(zip(grid.node_names, result.voltage[0] / grid.node_base_v, strict=True))
    place = {"33": "case33bw_bus.csv", "141": "case141_bus.csv", "322": "bus322/res_bus_without_sgen.csv"}[name]
    with (data / place).open() as file:
        for row in csv.DictReader(file):
            v = found[f"{row.get('bus') or row['index']}.1"]
            assert abs(v) == pytest.approx(float(row["vm_pu"]), abs=1e-6)
            angle = float(row.get("va_deg") or row["va_degree"])
            assert (np.degrees(np.angle(v)) - angle + 180.0) % 360.0 == pytest.approx(180.0, abs=1e-4)


def test_sizes_are_the_originals(task: Mapdn) -> None:
    # 33 buses x (P, Q, |V|, angle) + 6 PV x (P, Q); zone 1 has 12 buses: 4 x 12 + 2.
    assert len(task.observation_channels) == 144
    state = task.new_state(3)
    task.reset(state, np.arange(3), np.array([0, 5, 200]))
    assert task.agent_observations(state).shape == (3, 6, 50)
    check_env(GridEnv(task), skip_render_check=True)


def test_each_pv_is_an_agent_that_sees_its_zone(task: Mapdn) -> None:
    env = GridParallelEnv(task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(env, num_cycles=250)
    views, _ = env.reset(seed=1, options={"day": 160})
    together = GridVectorEnv(task, 1)
    observations, infos = together.reset(seed=1, options={"days": [160]})
    assert env.possible_agents == [channel.name.removesuffix(".q") for channel in task.action_channels]
    np.testing.assert_array_equal(np.stack(list(views.values())), together.agent_observations()[0])
    np.testing.assert_array_equal(env.state(), observations[0])
    actions = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    rewards = env.step({agent: actions[i : i + 1] for i, agent in enumerate(env.agents)})[1]
    assert set(rewards.values()) == {float(together.step(actions[None])[1][0])}
    assert infos["day"] == 160
    with pytest.raises(ConfigError, match="agents of task 'mapdn' are its devices"):
        GridParallelEnv(task, agents="zone")
    with pytest.raises(ConfigError, match="give days from 0 to 718"):
        env.reset(options={"day": 719})


def test_step_is_the_originals(task: Mapdn) -> None:
    start, actions = 250, np.linspace(-1.0, 1.0, 6, dtype=np.float32)[None]
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([start]))
    p_mw, rating_mva = state.pv_kw[:, 0] / 1e3, 1.2 * task._data.pv_kw.max(axis=0) / 1e3
    result = task.step(state, actions)
    q_mvar = 0.8 * actions[0] * np.sqrt(rating_mva**2 - p_mw**2)
    observed = task.observe(state)[0]
    assert observed[66 + 6 : 66 + 12] == pytest.approx(q_mvar, abs=1e-5)
    v = observed[78 : 78 + 33]
    assert result.rewards[0] == pytest.approx(-np.abs(v - 1.0).mean() - 0.1 * np.abs(q_mvar).mean(), abs=1e-6)
    is_outside = (v < 0.95) | (v > 1.05)
    assert result.indicators["controllable"][0] == float(not is_outside.any())
    # What is drawn at all buses but the source's, less what the source gives, are the losses.
    assert -observed[:33].sum() * 1e3 == pytest.approx(result.costs["losses_kwh"][0] * 20.0, rel=1e-3)


def test_agents_see_the_demand_of_their_zone(task: Mapdn) -> None:
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([250]))
    seen = task.agent_observations(state)[0]
    load_mw = {load.bus: task._data.load_kw[251, n] / 1e3 for n, load in enumerate(task.feeder.loads)}
    assert seen[0, :12] == pytest.approx([load_mw[str(bus)] for bus in range(7, 19)], abs=1e-6)
    # Agent of bus 22: four buses, so 18 numbers and padding.
    assert seen[2, :4] == pytest.approx([load_mw[str(bus)] for bus in range(19, 23)], abs=1e-6)
    assert seen[2, 18:].tolist() == [0.0] * 32


def test_barriers_are_the_papers() -> None:
    v = np.array([0.9, 1.0, 1.02, 1.1])
    assert voltage_barrier(v, "l1") == pytest.approx([0.1, 0.0, 0.02, 0.1])
    assert voltage_barrier(v, "l2") == pytest.approx([0.02, 0.0, 0.0008, 0.02])
    # 0.04 - 0.01 / (0.1 sqrt(2 pi)) at 1 pu; 2 |v - 1| - 0.095 outside the band.
    assert voltage_barrier(v, "bowl") == pytest.approx([0.105, 0.000106, 0.000896, 0.105], abs=1e-6)


def test_unsolved_power_flow_costs_200_and_ends_the_episode(data: Path) -> None:
    task = Mapdn(MapdnConfig(grid="33", data=str(data), num_days=2, noise=False))
    envs = GridVectorEnv(task, 2, seed=0)
    envs.reset(options={"days": [0, 0]})
    envs._state.grid.items_kw[:-6, 1] *= 50.0
    _, rewards, terminated, truncated, infos = envs.step(np.zeros((2, 6), dtype=np.float32))
    assert infos["converged"].tolist() == [1.0, 0.0]
    # A failure is an end, and no time limit: nothing is worth anything after it.
    assert terminated.tolist() == [False, True]
    assert not truncated.any()
    _, rewards_after, terminated, truncated, _ = envs.step(np.zeros((2, 6), dtype=np.float32))
    assert rewards_after[1] == 0.0
    assert not (terminated | truncated).any()
    assert rewards[1] < -200.0 < rewards[0]


def test_originals_csv_files_are_read(data: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, width in (("load_active", 32), ("load_reactive", 32), ("pv_active", 6)):
        values = rng.uniform(0.01, 0.1, (300, width))
        rows = [["", *(f"s{n}" for n in range(width))]]
        rows += [[f"2012-01-01 {n // 20:02d}:{3 * (n % 20):02d}:00", *row] for n, row in enumerate(values.tolist())]
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    task = Mapdn(MapdnConfig(grid="33", data=str(data), profiles=str(tmp_path), noise=False))
    assert len(task.allowed_days()) == 300 - 241
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([0]))
    assert state.pv_kw[:, 0] == pytest.approx(values[1] * 1e3, rel=1e-5)
    with pytest.raises(ConfigError, match="has 32 series: give 84"):
        read_grid("141", data, profiles=tmp_path, num_days=1, seed=0, noise=False)


def test_control_rate_counts_whole_steps(task: Mapdn, data: Path) -> None:
    played = episodes(task, "hold", [0, 480])
    assert played.rewards.shape == (2, 240)
    assert played.q_loss_mvar == pytest.approx([0.0, 0.0])
    steps = played.controllable_rate * 240.0
    assert steps == pytest.approx(np.rint(steps), abs=1e-9)
    assert (steps >= 0.0).all()
    assert steps.max() > 0.0
    rewards, metrics = ANCHOR.play(Run("33", "hold", 480, 0), data)
    assert len(rewards) == 240
    assert metrics["QL_mvar"] == 0.0
    assert 0.0 <= metrics["CR"] <= 1.0
    with pytest.raises(ConfigError, match="No episode starts at interval"):
        episodes(task, "hold", [10_000])
