"""Costs of constraints are what their standards say."""

from __future__ import annotations

import numpy as np
import pytest

from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.policies.optimal.plan import has_bound
from gridray.tasks.constraints import three_phase_places, unbalance_percent, voltage_depths
from gridray.tasks.registry import make_task
from gridray.tasks.volt_var import VoltVar


def test_depths_of_both_ranges_leave_out_nodes_without_supply() -> None:
    depths = voltage_depths(np.array([[1.0, 0.0], [0.94, 1.07], [0.9, 0.0], [1.06, 1.0]]))
    np.testing.assert_allclose(depths.range_a_pu, [0.01 + 0.05 + 0.01, 0.02])
    np.testing.assert_allclose(depths.range_b_pu, [0.017 + 0.002, 0.012])
    np.testing.assert_allclose(depths.share_a, [0.75, 0.25])
    np.testing.assert_allclose(depths.deepest_pu, [0.05, 0.02])


def test_unbalance_is_negative_over_positive_sequence() -> None:
    turn = np.exp(-2j * np.pi / 3.0)
    # V1 = 1, V2 = 0.03: phases are a sum of both sequences, which turn against each other.
    phases = np.array([1.0 + 0.03, turn + 0.03 * turn**2, turn**2 + 0.03 * turn])
    v = np.stack((phases.real, phases.imag), axis=1)[:, :, None]
    np.testing.assert_allclose(unbalance_percent(np.array([[0, 1, 2]]), v), [[3.0]])
    assert unbalance_percent(np.array([[0, 1, 2]]), np.zeros((3, 2, 1))) == 0.0


def test_unbalance_of_the_ieee13_feeder_is_that_of_its_phasors() -> None:
    grid = compile_feeder(load_feeder("ieee13"))
    v = grid.nominal_v[:, :, None]
    places = three_phase_places(grid)
    a, b, c = (v[places[:, k], 0, 0] + 1j * v[places[:, k], 1, 0] for k in range(3))
    turn = np.exp(2j * np.pi / 3.0)
    expected = 100.0 * np.abs(a + turn**2 * b + turn * c) / np.abs(a + turn * b + turn**2 * c)
    np.testing.assert_allclose(unbalance_percent(places, v)[:, 0], expected, rtol=1e-9)
    assert expected.max() > 1.0


@pytest.mark.parametrize("step_minutes", [5, 10, 30])
def test_en50160_counts_means_of_ten_minutes(step_minutes: int) -> None:
    task = make_task("volt_var", {"num_days": 5, "step_minutes": step_minutes, "num_pv": 0, "num_batteries": 0})
    assert isinstance(task, VoltVar)
    state = task.new_state(2)
    task.reset(state, np.arange(2), np.array([0, 1]), np.arange(2, dtype=np.uint64))
    constraints, zero = task.twin.constraints, np.zeros(2)
    shares = []
    # 0.85 and 1.05 pu: a mean of 0.95 over ten minutes is within 10 %, 0.85 for ten minutes is not.
    for v_pu in (0.85, 1.05, 0.85, 0.85):
        state.interval_v = np.full_like(state.interval_v, v_pu)
        costs = constraints.costs(state, zero, voltage_depths(state.interval_v))
        shares.append(costs["voltage_en50160_share"][0])
        state.t += 1
    assert shares == ([0.0, 0.0, 0.0, 1.0] if step_minutes == 5 else [1.0, 0.0, 1.0, 1.0])


def test_overload_is_what_the_loading_exceeds() -> None:
    task = make_task("volt_var", {"num_days": 5, "load_scale": 1.6, "num_pv": 0, "num_batteries": 0})
    assert isinstance(task, VoltVar)
    state = task.new_state(3)
    task.reset(state, np.arange(3), np.arange(3), np.arange(3, dtype=np.uint64))
    state.t[:] = 70
    task.twin.move_on(state)
    result = task.step(state, np.zeros((3, len(task.action_channels)), np.float32))
    assert (result.costs["thermal_overload_pu"] > 0.0).any()
    loading = task.twin.constraints.loadings(state)
    assert loading.shape == (len(task.twin.constraints.ratings_a), 3)


def test_thermal_image_lets_short_overloads_pass() -> None:
    settings = {"num_days": 5, "step_minutes": 5}
    task = make_task("volt_var", settings | {"has_thermal_image": True})
    assert isinstance(task, VoltVar)
    assert not has_bound(task)
    state, constraints, zero = task.new_state(2), task.twin.constraints, np.zeros(2)
    task.reset(state, np.arange(2), np.array([0, 1]), np.arange(2, dtype=np.uint64))
    present = constraints.loadings(state)
    np.testing.assert_allclose(state.heat, present**2, rtol=1e-12)
    # Environment 1 cold, 0 at the rating: 5 min at the present loading, time constants of 10 min and of 3 h.
    state.heat[...] = [1.0, 0.0]
    costs = constraints.costs(state, zero, voltage_depths(state.interval_v))
    is_line = np.array([name.startswith("line.") for name in constraints.ratings_a])
    left = np.exp(-5.0 / np.where(is_line, 10.0, 180.0))[:, None]
    heat = present**2 + (np.array([1.0, 0.0]) - present**2) * left
    np.testing.assert_allclose(state.heat, heat, rtol=1e-12)
    np.testing.assert_allclose(costs["thermal_overload_pu"], np.maximum(np.sqrt(heat) - 1.0, 0.0).sum(axis=0))
    # A new day of one leaves the other as hot as it was.
    task.reset(state, np.array([0]), np.array([0]), np.zeros(1, dtype=np.uint64))
    np.testing.assert_allclose(state.heat, np.stack((present[:, 0] ** 2, heat[:, 1]), axis=1), rtol=1e-9)


def test_heat_of_a_steady_day_costs_what_its_loading_does() -> None:
    # Loads of 2.5 times the rating's: the present current and the heat of a running system agree at once.
    settings = {"num_days": 5, "step_minutes": 5, "load_scale": 2.5}
    found = []
    for has_image in (False, True):
        task = make_task("volt_var", settings | {"has_thermal_image": has_image})
        assert isinstance(task, VoltVar)
        state = task.new_state(1)
        task.reset(state, np.zeros(1, int), np.zeros(1, int), np.zeros(1, np.uint64))
        costs = task.twin.constraints.costs(state, np.zeros(1), voltage_depths(state.interval_v))
        found.append(costs["thermal_overload_pu"][0])
        assert state.heat.shape == (len(task.twin.constraints.ratings_a) * has_image, 1)
    assert found[0] > 0.0
    assert found[1] == pytest.approx(found[0])


def test_budget_refuses_what_is_too_often_and_keeps_to_dead_times() -> None:
    base = {"num_days": 5, "step_minutes": 15}
    actions = {"free": None, "hard": {"per_day": 5, "dead_time_minutes": 30}}
    made = {}
    for name, budget in actions.items():
        task = make_task("volt_var", base if budget is None else base | {"tap_budget": budget})
        state = task.new_state(2)
        task.reset(state, np.arange(2), np.arange(2), np.arange(2, dtype=np.uint64))
        column = [c.name for c in task.action_channels].index("regulator.reg1.tap_change")
        steps, refused = [], []
        for k in range(6):
            act = np.zeros((2, len(task.action_channels)), np.float32)
            # Two taps up and down in turn: 2 of a range of -4..4.
            act[:, column] = 0.6 if k % 2 else -0.6
            result = task.step(state, act)
            steps.append(result.costs["tap_operations"][0])
            refused.append(result.costs["refused_operations"][0])
        made[name] = (steps, refused)
    assert made["free"] == ([2.0] * 6, [0.0] * 6)
    # Two at 0 min, none at 15 (dead time), two at 30, none at 45, the fifth at 60, and no more.
    assert made["hard"] == ([2.0, 0.0, 2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 2.0, 1.0, 2.0])


def test_soft_budget_counts_and_lets_pass() -> None:
    soft = {"per_day": 2, "is_enforced": False}
    task = make_task("volt_var", {"num_days": 5, "capacitor_budget": soft})
    state = task.new_state(1)
    task.reset(state, np.arange(1), np.arange(1), np.arange(1, dtype=np.uint64))
    column = [c.name for c in task.action_channels].index("capacitor.cap1.state")
    seen = []
    for k in range(4):
        act = np.zeros((1, len(task.action_channels)), np.float32)
        act[:, column] = 1.0 if k % 2 else -1.0
        result = task.step(state, act)
        seen.append((result.costs["capacitor_operations"][0], result.costs["refused_operations"][0]))
    assert seen == [(1.0, 0.0), (1.0, 0.0), (1.0, 1.0), (1.0, 1.0)]
    assert not any(channel.name.endswith("is_ready") for channel in task.observation_channels)
