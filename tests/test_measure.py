"""What is read off a solved state in one pass is what the physics says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import (
    PowerFlow,
    branch_powers,
    generators_kw,
    node_voltages,
    voltage_magnitudes,
    voltages_at,
)
from gridray.physics.powerflow import solve
from gridray.tasks.siting import site_inverters
from gridray.tasks.twin_config import InverterConfig

if TYPE_CHECKING:
    from gridray.physics.state import GridState

PUBLISHED = load_feeder("ieee34")
PV, BATTERIES = site_inverters(PUBLISHED, InverterConfig(pv_share=0.3, num_pv=2, battery_share=0.05))
GRID = compile_feeder(PUBLISHED.with_generators((*PV, *BATTERIES)))


def solved(num_envs: int) -> GridState:
    rng = np.random.default_rng(0)
    load_kw = GRID.load_kw * rng.uniform(0.3, 1.2, (num_envs, len(GRID.load_kw)))
    generator_kw = rng.uniform(-90.0, 250.0, (num_envs, len(GRID.generator_kw)))
    states = rng.integers(0, 2, (num_envs, len(GRID.capacitor_names)))
    return solve(GRID, load_kw=load_kw, generator_kw=generator_kw, capacitor_states=states).state


@pytest.mark.parametrize("num_envs", [1, 16, 37])
def test_voltages_and_magnitudes_are_those_of_the_solution_in_the_order_of_names(num_envs: int) -> None:
    state = solved(num_envs)
    v, magnitude = node_voltages(GRID, state), voltage_magnitudes(GRID, state)
    np.testing.assert_array_equal(v, state.v[GRID.place, 0] + 1j * state.v[GRID.place, 1])
    np.testing.assert_allclose(magnitude, np.abs(v), rtol=1e-14)
    result = PowerFlow(GRID, state)
    np.testing.assert_allclose(result.voltage, v.T * GRID.node_base_v, rtol=1e-14)
    np.testing.assert_array_equal(result.vmag_pu, magnitude.T)


def test_generators_draw_what_their_branches_do() -> None:
    state = solved(20)
    drawn, by_branch = generators_kw(GRID, state), branch_powers(GRID, state).real
    item = GRID.network.branch_item - len(GRID.load_names)
    for generator in range(len(GRID.generator_names)):
        expected = by_branch[item == generator].sum(axis=0)
        np.testing.assert_allclose(drawn[generator], expected, atol=1e-9)
    assert (drawn < 0.0).any()


def test_an_environment_is_read_the_same_alone_and_among_others() -> None:
    state = solved(37)
    row = type(state)._make(np.ascontiguousarray(array[..., 33:34]) for array in state)
    np.testing.assert_array_equal(generators_kw(GRID, row)[:, 0], generators_kw(GRID, state)[:, 33])


def test_no_node_at_all_has_no_voltage() -> None:
    assert voltages_at(GRID, solved(3), np.empty((0, 2), dtype=np.int64)).shape == (0, 2, 3)
