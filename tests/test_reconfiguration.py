"""Switches after outages: radial, no fault fed, every customer counted."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from gridray.errors import ConfigError
from gridray.feeders.library import feeder_names, load_feeder
from gridray.tasks.fleets.operations import OperationBudget
from gridray.tasks.fleets.zones import find_zones, protect, switch_over
from gridray.tasks.reconfiguration import Reconfiguration, ReconfigurationConfig
from gridray.tasks.switch_siting import with_switchgear

NUM_ENVS = 12
#    0 --s0-- 1 --s1-- 2 --s2-- 3, and s3 from 0 to 3, open.
ENDS = np.array([[0, 1], [1, 2], [2, 3], [0, 3]])
NORMAL = np.array([[1.0], [1.0], [1.0], [0.0]])


def fault(*zones: int) -> np.ndarray:
    return np.isin(np.arange(4), zones)[:, None]


def task_on(feeder: str, **more: object) -> Reconfiguration:
    return Reconfiguration(ReconfigurationConfig(feeder=feeder, num_days=10, **more))  # type: ignore[arg-type]


def test_the_switch_next_to_a_fault_trips_and_what_is_behind_is_dark() -> None:
    closed = NORMAL.copy()
    supplied = protect(ENDS, fault(2), closed)
    np.testing.assert_array_equal(closed[:, 0], [1, 0, 1, 0])
    np.testing.assert_array_equal(supplied[:, 0], [True, True, False, False])


@pytest.mark.parametrize(
    ("wanted", "closed_after", "num_refused"),
    [
        ([np.nan, np.nan, np.nan, 1.0], [1, 0, 1, 0], 1),  # would feed the fault through s2
        ([np.nan, np.nan, 0.0, 1.0], [1, 0, 0, 1], 0),  # isolates first: openings come before closings
        ([np.nan, 1.0, np.nan, np.nan], [1, 0, 1, 0], 1),  # back onto the fault
    ],
)
def test_a_tie_restores_only_behind_an_isolated_fault(
    wanted: list[float], closed_after: list[int], num_refused: int
) -> None:
    closed = np.array([[1.0], [0.0], [1.0], [0.0]])
    ready = np.ones((4, 1), dtype=np.bool_)
    refused = switch_over(ENDS, fault(2), ready, np.array(wanted)[:, None], closed)
    assert closed[:, 0].tolist() == closed_after
    assert refused[0] == num_refused


def test_a_loop_is_refused_and_a_switch_that_rests_does_not_move() -> None:
    closed, ready = NORMAL.copy(), np.array([[True], [False], [True], [True]])
    wanted = np.array([[np.nan], [0.0], [np.nan], [1.0]])
    assert switch_over(ENDS, fault(), ready, wanted, closed)[0] == 2.0
    np.testing.assert_array_equal(closed, NORMAL)


@pytest.mark.parametrize("name", feeder_names())
def test_switchgear_leaves_a_radial_feeder_of_zones(name: str) -> None:
    feeder = with_switchgear(load_feeder(name), 4, 2)
    zones = find_zones(feeder)
    open_lines = {line.name for line in feeder.lines if line.is_open}
    assert len(zones.names) == sum(switch not in open_lines for switch in zones.switches) + 1
    assert sum(switch in open_lines for switch in zones.switches) >= 2
    assert all(load.bus in zones.bus_zone for load in feeder.loads)
    total = sum(line.length_km for line in feeder.lines if not line.is_open)
    assert zones.line_km.sum() == pytest.approx(total)


@pytest.mark.parametrize("feeder", ["ieee13", "ieee123"])
def test_random_commands_never_make_a_loop_feed_a_fault_or_leave_customers_uncounted(feeder: str) -> None:
    task = task_on(feeder, step_minutes=60, storm_factor=200.0)
    state = task.new_state(NUM_ENVS)
    task.reset(state, np.arange(NUM_ENVS), np.arange(NUM_ENVS) % 10, np.arange(NUM_ENVS, dtype=np.uint64))
    outages, switches, supply = task.twin.fleets
    zones = switches.zones  # type: ignore[attr-defined]
    rows = [task.grid.switch_names.index(name) for name in zones.switches]
    load_node = [
        next(n for n, node in enumerate(task.grid.node_names) if node.startswith(f"{bus}.")) for bus in supply.buses
    ]
    rng = np.random.default_rng(0)
    num_dark = 0
    for _ in range(24):
        actions = rng.uniform(-1, 1, (NUM_ENVS, len(task.action_channels))).astype(np.float32)
        interval = task.twin.interval(state, _switchings(actions))
        faulted = outages.faulted(state.fleets["zone"])  # type: ignore[attr-defined]
        dark = interval.vmag_pu[load_node] == 0.0
        for env in range(NUM_ENVS):
            closed = state.grid.switch_closed[rows, env] == 1.0
            graph = nx.MultiGraph(zones.ends[closed].tolist())
            graph.add_node(0)
            assert nx.number_of_edges(graph) == len(graph) - nx.number_connected_components(graph)
            assert not faulted[list(nx.node_connected_component(graph, 0)), env].any()
        share = (supply.customers * dark).sum(axis=0) / supply.customers.sum()  # type: ignore[attr-defined]
        np.testing.assert_allclose(task.supply.interrupted_share(state), share)
        num_dark += int(dark.sum())
        task.twin.move_on(state)
    assert num_dark > 0


def _switchings(actions: np.ndarray) -> np.ndarray:
    return np.where(actions > 1 / 3, 1.0, np.where(actions < -1 / 3, 0.0, np.nan)).T


def test_an_outage_without_answer_costs_its_customers_minutes_and_energy() -> None:
    task = task_on("ieee13", step_minutes=30, failures_per_km_year=0.1, first_outage_h=3.0, switching_minutes=2.0)
    state = task.new_state(NUM_ENVS)
    task.reset(state, np.arange(NUM_ENVS), np.arange(NUM_ENVS) % 10, np.arange(NUM_ENVS, dtype=np.uint64))
    saidi, ens, expected_min, expected_kwh = (np.zeros(NUM_ENVS) for _ in range(4))
    keep = np.zeros((NUM_ENVS, len(task.action_channels)), np.float32)
    for _ in range(48):
        demand = state.grid.items_kw[: len(task.grid.load_names)].copy()
        out = ~state.fleets["switch"].is_supplied[task.supply.zone]
        expected_min += 30.0 * (task.supply.customers * out).sum(axis=0) / task.supply.customers.sum()
        expected_kwh += 0.5 * (demand * out).sum(axis=0)
        result = task.step(state, keep)
        saidi += result.costs["saidi_min"]
        ens += result.costs["ens_kwh"]
    np.testing.assert_allclose(saidi, expected_min)
    np.testing.assert_allclose(ens, expected_kwh)
    # Nobody closes what protection opened: every environment has its outage, and it lasts.
    assert (saidi > 0.0).all()


def test_isolating_and_reclosing_shortens_interruptions() -> None:
    task = task_on("ieee123", step_minutes=30, first_outage_h=2.0, num_ties=2)
    totals = {}
    for name in ("keep", "restore"):
        state = task.new_state(NUM_ENVS)
        task.reset(state, np.arange(NUM_ENVS), np.arange(NUM_ENVS) % 10, np.arange(NUM_ENVS, dtype=np.uint64))
        zones = task.twin.fleets[1].zones  # type: ignore[attr-defined]
        saidi = 0.0
        for _ in range(48):
            actions = np.zeros((NUM_ENVS, len(task.action_channels)), np.float32)
            if name == "restore":
                faulted = task.twin.fleets[0].faulted(state.fleets["zone"])  # type: ignore[attr-defined]
                supplied = state.fleets["switch"].is_supplied
                a, b = zones.ends.T
                # Open what touches a fault, close what leads from supply into the dark.
                touches = faulted[a] | faulted[b]
                leads = (supplied[a] != supplied[b]) & ~touches
                actions = np.where(touches, -1.0, np.where(leads, 1.0, 0.0)).T.astype(np.float32)
            result = task.step(state, actions)
            saidi += result.costs["saidi_min"].mean()
        totals[name] = saidi
    assert totals["restore"] < 0.6 * totals["keep"]


def test_overcurrent_trips_the_switch_and_its_customers_are_dark() -> None:
    task = task_on("ieee13", step_minutes=15, pickup=0.3, first_outage_h=0.0, failures_per_km_year=0.0)
    state = task.new_state(2)
    task.reset(state, np.arange(2), np.arange(2), np.arange(2, dtype=np.uint64))
    state.t[:] = 72
    keep = np.zeros((2, len(task.action_channels)), np.float32)
    for _ in range(6):
        result = task.step(state, keep)
    assert (result.indicators["interrupted_share"] > 0.0).all()
    assert (result.costs["switch_operations"] == 0.0).all()
    assert (result.costs["refused_operations"] == 0.0).all()


def test_switch_budget_is_a_mask_and_a_cost() -> None:
    task = Reconfiguration(
        ReconfigurationConfig(
            feeder="ieee13", num_days=10, first_outage_h=0.0, switch_budget=OperationBudget(per_day=1)
        )
    )
    state = task.new_state(1)
    task.reset(state, np.arange(1), np.arange(1), np.arange(1, dtype=np.uint64))
    names = [channel.name for channel in task.action_channels]
    column = names.index("switch.671692.state")
    seen = [channel.name for channel in task.observation_channels].index("switch.671692.may_switch")
    costs, masks = [], []
    for command in (-1.0, 1.0):
        masks.append(task.observe(state)[0, seen] > 0.0)
        actions = np.zeros((1, len(names)), np.float32)
        actions[0, column] = command
        result = task.step(state, actions)
        costs.append((result.costs["switch_operations"][0], result.costs["refused_operations"][0]))
    assert costs == [(1.0, 0.0), (0.0, 1.0)]
    assert masks == [True, False]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_sectionalisers": 0}, "num_sectionalisers is 0"),
        ({"switching_minutes": 15.0}, "switching_minutes is 15"),
        ({"first_outage_h": 30.0}, "first_outage_h is 30"),
        ({"pickup": 0.0}, "pickup is 0"),
        ({"storm_factor": -1.0}, "storm_factor is -1"),
    ],
)
def test_configuration_that_means_nothing_is_refused(config: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReconfigurationConfig(**config)  # type: ignore[arg-type]
