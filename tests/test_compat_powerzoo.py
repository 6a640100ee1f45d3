"""PowerZoo's DSO task: flexible loads, their queue, and the price that the original lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from gridray.compat.powerzoo_dso import FLEXIBLE_MW, PowerZooDso, PowerZooDsoConfig
from gridray.compat.powerzoo_scores import daily_results
from gridray.envs.single import GridEnv
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def data(reference_dir: Path) -> Path:
    """Folder of the grid's tables."""
    path = reference_dir / "matpower"
    if not path.is_dir():
        pytest.skip(f"no grids at '{path}': set GRIDRAY_REFERENCE_DIR to the folder that has them")
    return path


@pytest.fixture(scope="module")
def task(data: Path) -> PowerZooDso:
    """Return the original's variant, three days."""
    return PowerZooDso(PowerZooDsoConfig(data=str(data), num_days=3))


def _actions(curtailed: float, shifted: float) -> np.ndarray:
    return np.tile([2.0 * curtailed - 1.0, 2.0 * shifted - 1.0], 6)[None].astype(np.float32)


def test_environment_keeps_gymnasiums_contract(task: PowerZooDso) -> None:
    env = GridEnv(task)
    check_env(env, skip_render_check=True)
    assert env.action_space.shape == (12,)
    assert env.observation_space.shape == (68,)


def test_source_and_losses_are_those_of_the_33_bus_grid(task: PowerZooDso) -> None:
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([0]))
    task._shapes = np.ones_like(task._shapes)
    result = task.step(state, _actions(0.0, 0.0))
    assert task.observe(state)[0, 0] == pytest.approx(1.045, abs=1e-6)
    # 202.68 kW at 1 pu; losses of constant powers fall with the square of the voltage, and faster, as drops do too.
    assert 0.95 * 202.68 / 1.045**2 < 1e3 * result.indicators["losses_mw"][0] < 202.68 / 1.045**2
    assert result.rewards[0] == pytest.approx(-0.1 * result.indicators["losses_mw"][0])


def test_what_is_shifted_comes_back_in_four_parts(task: PowerZooDso) -> None:
    state = task.new_state(1)
    task.reset(state, np.array([0]), np.array([0]))
    back = []
    for t in range(7):
        task.step(state, _actions(0.0, 1.0 if t == 0 else 0.0))
        back.append(state.flow_mw[2, 0, 0])
    assert back == pytest.approx([0.0, *[0.15 / 4.0] * 4, 0.0, 0.0])


def test_queue_is_first_in_first_out_and_leaves_energy_behind(data: Path) -> None:
    priced = PowerZooDso(PowerZooDsoConfig(data=str(data), num_days=1, unserved_weight=2.0))
    state = priced.new_state(1)
    priced.reset(state, np.array([0]), np.array([0]))
    for _ in range(48):
        result = priced.step(state, _actions(0.0, 1.0))
    # 48 steps put 48 x 4 slots in and take 47 out: 145 quarters of 0.65 MW for half an hour are left.
    left = 0.5 * 145.0 / 4.0 * sum(FLEXIBLE_MW.values())
    assert result.costs["unserved_mwh"][0] == pytest.approx(left)
    assert result.rewards[0] == pytest.approx(-0.1 * result.indicators["losses_mw"][0] - 2.0 * left)


def test_curtailing_everything_pays_only_without_its_price(data: Path) -> None:
    returns = {}
    for weight in (0.0, 1.0):
        task = PowerZooDso(PowerZooDsoConfig(data=str(data), num_days=3, unserved_weight=weight))
        for policy in ("hold", "curtail"):
            returns[weight, policy] = daily_results(task, policy, range(3))[0].sum(axis=1).mean()
    assert returns[0.0, "curtail"] > returns[0.0, "hold"]
    assert returns[1.0, "curtail"] < returns[1.0, "hold"]
    # 0.65 MW all day.
    assert returns[0.0, "curtail"] - returns[1.0, "curtail"] == pytest.approx(0.65 * 24.0)


def test_wrong_values_are_named(task: PowerZooDso, data: Path) -> None:
    with pytest.raises(ConfigError, match="There is no day 3"):
        daily_results(task, "hold", [3])
    with pytest.raises(ConfigError, match="There is no policy 'utility'"):
        daily_results(task, "utility", [0])
    with pytest.raises(ConfigError, match="unserved_weight is -1"):
        PowerZooDsoConfig(data=str(data), unserved_weight=-1.0)
