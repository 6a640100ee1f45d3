"""Switching with the day's faults known in advance: the best way through all states of the switches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.reliability import MOMENTARY_MIN
from gridray.physics.controls import settle
from gridray.physics.state import take
from gridray.policies.optimal.network import Weights, follow, network_penalties
from gridray.policies.optimal.programme import BestDay
from gridray.policies.optimal.sensitivities import measured
from gridray.tasks.fleets.zones import protect
from gridray.tasks.twin import SOLVER_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.policies.optimal.network import Followed
    from gridray.tasks.reconfiguration import Reconfiguration

MAX_SWITCHES = 10
"""Of a feeder for which all states are tried."""
BATCH = 1024
"""About as many power flows are solved together."""


def best_restoration_day(task: Reconfiguration, number: int, seed: int) -> BestDay:
    """Return bound and plan of a day; seed: of its outages.

    Every radial state of the switches is solved in every interval, and the best way through them is found backwards
    (Bellman). Relaxed: relays do not trip on overcurrent, budgets are left out, and so are interruptions that last too
    long only by going on over an interval's end. The bound is the optimum, raised by as much as it and the twin differ
    on the plan, where regulators start from where they were.
    """
    zones = task.switches.zones
    states = radial_states(zones.ends, len(zones.names))
    is_open = {line.name: line.is_open for line in task.feeder.lines}
    normal = np.array([not is_open[name] for name in zones.switches])
    first = int(np.flatnonzero((states == normal).all(axis=1))[0])
    way, penalties = _best_way(task, follow(task, number, {}, seed=seed), states, first)
    plan = {f"switch.{name}.state": states[way, j].astype(np.float64) for j, name in enumerate(zones.switches)}
    differ = np.abs(follow(task, number, plan, seed=seed).rewards + penalties).sum()
    return BestDay(min(float(differ - penalties.sum()), 0.0), plan)


def radial_states(ends: NDArray[np.int64], num_zones: int) -> NDArray[np.bool_]:
    """Return all states of J switches that close no loop, bool [K, J]; ends: zones that each joins, [J, 2]."""
    num_switches = len(ends)
    states = (np.arange(2**num_switches)[:, None] >> np.arange(num_switches)) & 1 == 1
    part = np.tile(np.arange(num_zones), (len(states), 1))
    is_radial = np.ones(len(states), dtype=np.bool_)
    for closed, (a, b) in zip(states.T, ends, strict=True):
        first, second = part[:, a, None].copy(), part[:, b, None].copy()
        is_radial &= ~(closed & (first == second)[:, 0])
        part = np.where(closed[:, None] & (part == second), first, part)
    radial: NDArray[np.bool_] = states[is_radial]
    return radial


def _best_way(
    task: Reconfiguration, day: Followed, states: NDArray[np.bool_], first: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the state to switch to in each interval from the first one on, int64 [T], and its penalty, float64 [T]."""
    config, ends, supply = task.config, task.switches.zones.ends, task.supply
    num_zones, num = int(ends.max()) + 1, len(states)
    early_min, late_min = config.switching_minutes, config.step_minutes - config.switching_minutes
    percent = 100.0 / (task.twin.nominal_kw * task.twin.step_h)
    in_zone = supply.zone == np.arange(num_zones)[:, None]
    customers = config.interruption_weight * 100.0 * (in_zone @ supply.customers[:, 0]) / supply.customers.sum()
    wanted = config.outage_weight * percent / 60.0 * (in_zone @ day.grid.items_kw[: len(supply.zone)])
    network = _networks(task, day, states)
    index = {row.tobytes(): k for k, row in enumerate(states)}
    closed = states.astype(np.float64)
    moves = config.switching_weight * (closed @ (1.0 - closed).T + (1.0 - closed) @ closed.T)
    # What has no way to the source has no supply, and no state that is kept feeds a fault.
    had = _protected(ends, states, np.zeros(num_zones, dtype=np.bool_))[1]
    is_out = ~had.T
    choices, costs = [], []
    to_come = np.zeros(num)
    for t in range(task.num_steps)[::-1]:
        after, was = _protected(ends, states, task.outages.faulted(day.fleets[t]["zone"])[:, 0])
        tripped = np.array([index[row.tobytes()] for row in after])
        lost, kept = had & ~was, customers * (had & was)
        stays = (customers * lost) @ is_out
        comes = (customers * lost).sum(axis=1, keepdims=True) - stays
        begun = (
            stays * (early_min + late_min > MOMENTARY_MIN)
            + comes * (early_min > MOMENTARY_MIN)
            + kept @ is_out * (late_min > MOMENTARY_MIN)
        )
        unserved = (~was @ wanted[:, t])[:, None] * early_min + wanted[:, t] @ is_out * late_min
        cost = unserved + begun + moves[tripped] + network[:, t]
        total = np.where(tripped == np.arange(num), cost + to_come, np.inf)
        choices.append(total.argmin(axis=1))
        costs.append(np.take_along_axis(cost, choices[-1][:, None], axis=1)[:, 0])
        to_come = total.min(axis=1)
    way, penalties, at = [], [], first
    for choice, cost in zip(choices[::-1], costs[::-1], strict=True):
        penalties.append(cost[at])
        at = int(choice[at])
        way.append(at)
    return np.array(way), np.array(penalties)


def _protected(
    ends: NDArray[np.int64], states: NDArray[np.bool_], faulted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what protection leaves closed, bool [K, J], and the zones with supply, bool [K, Z], at faults bool [Z]."""
    closed = np.ascontiguousarray(states.T, dtype=np.float64)
    supplied = protect(ends, np.repeat(faulted[:, None], len(states), axis=1), closed)
    return np.ascontiguousarray(closed.T == 1.0), supplied.T


def _networks(task: Reconfiguration, day: Followed, states: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return what voltages, overloads and losses are penalised in every state and interval, float64 [K, T]."""
    config = task.config
    weights = Weights(
        100.0 * config.voltage_weight,
        100.0 * config.overload_weight,
        100.0 * config.loss_weight / task.twin.nominal_kw,
    )
    rows = [task.grid.switch_names.index(name) for name in task.switches.names]
    found = []
    for part in np.array_split(states, -(-len(states) * task.num_steps // BATCH)):
        grid = take(day.grid, np.tile(np.arange(task.num_steps), len(part)))
        grid.switch_closed[rows] = np.repeat(part, task.num_steps, axis=0).T
        grid.v[:] = task.grid.nominal_v[:, :, None]
        solved = settle(task.grid, grid, tolerance=SOLVER_TOLERANCE)
        found.append(network_penalties(weights, measured(task, solved)).reshape(len(part), task.num_steps))
    return np.concatenate(found)
