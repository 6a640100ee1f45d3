"""PowerZoo's DSO task: flexible loads on the 33-bus feeder (github.com/powerzoojax/PowerZooPy, dso_task.py)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridray.compat.matpower import matpower_tables
from gridray.compat.tables import make_table
from gridray.errors import ConfigError
from gridray.feeders.pandapower import from_pandapower
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import PowerFlow, power_balance, voltage_magnitudes
from gridray.physics.solver import solve_state
from gridray.physics.state import GridState, nominal_state, put
from gridray.profiles.generate import ProfileConfig, generate_profiles
from gridray.tasks.base import ActionChannel, ObservationChannel, StepResult, set_points

FLEXIBLE_MW = {6: 0.15, 14: 0.10, 18: 0.10, 22: 0.08, 28: 0.12, 33: 0.10}
"""Bus -> MW that may be curtailed, and as much again that may be shifted."""
FIRST_BUSES = (2, 19, 23)
"""First bus of each of the three segments that share a load shape: 2-18, 19-22, 23-33."""
HORIZON = 4
"""Steps over which shifted power comes back."""
SOURCE_PU = 1.045
V_BAND_PU = (0.94, 1.06)
LOSS_WEIGHT = 0.1
"""Reward lost per MW of losses."""
HOURS = 0.5
NUM_STEPS = 48
SOLVER_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class PowerZooDsoConfig:
    """data: folder with case33bw_*.csv; unserved_weight: reward lost per MWh curtailed or not given back by midnight.

    The original has no such price (0): there, curtailing everything scores best. num_days, seed: of generated shapes.
    """

    data: str
    unserved_weight: float = 0.0
    num_days: int = 365
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.unserved_weight < 0.0 or self.num_days < 1:
            raise ConfigError(
                f"unserved_weight is {self.unserved_weight} and num_days {self.num_days}: give at least 0 and 1."
            )


@dataclass(kw_only=True)
class PowerZooDsoState:
    """What changes in E environments.

    day, t: int64 [E]; grid: GridState; queue_mw: float64 [6, slots, E], what comes back, in order; head, tail: int64
    [6, E], next slot to come back and first free one; flow_mw: float64 [3, 6, E], curtailed, shifted out and in.
    """

    day: NDArray[np.int64]
    t: NDArray[np.int64]
    grid: GridState
    queue_mw: NDArray[np.float64]
    head: NDArray[np.int64]
    tail: NDArray[np.int64]
    flow_mw: NDArray[np.float64]


class PowerZooDso:
    """Curtail and shift six loads against losses, 48 half-hours, slack at 1.045 pu.

    Actions: MW curtailed and MW shifted out of each load. What is shifted comes back in four equal parts, one a step,
    behind what waits already: as in the original the queue is first in, first out, so that who shifts at each step
    waits four times as long each time, and part of the energy never comes back. Observations: |V| of the buses, MW of
    each segment, and for each flexible load the shares curtailed, shifted out and in, slots waiting over 4 and energy
    waiting over its most; sine and cosine of the time. Reward: -0.1 losses in MW - unserved_weight * MWh unserved.
    """

    name = "powerzoo_dso"
    cost_names: tuple[str, ...] = ("voltage_violation_pu", "violated_buses", "unserved_mwh")
    num_steps = NUM_STEPS

    def __init__(self, config: PowerZooDsoConfig) -> None:
        """Compile the feeder and generate a year of shapes."""
        self.config = config
        tables = matpower_tables(Path(config.data), "case33bw", source_pu=SOURCE_PU)
        units = {n: {"bus": bus, "p_mw": mw, "q_mvar": 0.0} for n, (bus, mw) in enumerate(FLEXIBLE_MW.items())}
        self.feeder = from_pandapower(tables | {"sgen": make_table(units)})
        self.grid = grid = compile_feeder(self.feeder)
        self._node = np.array([grid.node_names.index(f"{bus}.1") for bus in range(1, 34)])
        self._most_mw = np.array(list(FLEXIBLE_MW.values()))[:, None]
        load_bus = np.array([int(load.bus) for load in self.feeder.loads])
        self._segment = np.searchsorted(FIRST_BUSES, load_bus, side="right") - 1
        self._shapes = _segment_shapes(config, grid.load_kw, self._segment)
        buses = list(FLEXIBLE_MW)
        self.action_channels = tuple(
            ActionChannel(f"load{bus}.{name}", "MW", 0.0, FLEXIBLE_MW[bus], "continuous")
            for bus in buses
            for name in ("curtailed", "shifted")
        )
        shares = ("curtailed", "shifted_out", "shifted_in", "slots_waiting", "energy_waiting")
        names = [(f"bus.{bus}.vmag", "pu") for bus in range(1, 34)]
        names += [(f"segment.{n}.load", "MW") for n in range(len(FIRST_BUSES))]
        names += [(f"load{bus}.{share}", "1") for share in shares for bus in buses]
        names += [("time.sin_day", "1"), ("time.cos_day", "1")]
        self.observation_channels = tuple(ObservationChannel(name, unit, 0.0, 1.0) for name, unit in names)

    def config_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return asdict(self.config)

    def allowed_days(self) -> NDArray[np.int64]:
        """Return the numbers of the generated days."""
        return np.arange(self.config.num_days)

    def new_state(self, num_envs: int) -> PowerZooDsoState:
        """Return a state to be filled by `reset`."""
        num_units = len(FLEXIBLE_MW)
        return PowerZooDsoState(
            day=np.zeros(num_envs, dtype=np.int64),
            t=np.zeros(num_envs, dtype=np.int64),
            grid=nominal_state(self.grid, num_envs),
            queue_mw=np.zeros((num_units, HORIZON * (NUM_STEPS + 1), num_envs)),
            head=np.zeros((num_units, num_envs), dtype=np.int64),
            tail=np.zeros((num_units, num_envs), dtype=np.int64),
            flow_mw=np.zeros((3, num_units, num_envs)),
        )

    def reset(
        self,
        state: PowerZooDsoState,
        rows: NDArray[np.int64],
        days: NDArray[np.int64],
        seeds: NDArray[np.uint64] | None = None,  # noqa: ARG002  # nothing is drawn
    ) -> None:
        """Start these days in these rows, nothing waiting."""
        part = self.new_state(len(rows))
        part.day[:] = days
        self._solve(part)
        for name in ("day", "t", "queue_mw", "head", "tail", "flow_mw"):
            getattr(state, name)[..., rows] = getattr(part, name)
        put(state.grid, rows, part.grid)

    def step(self, state: PowerZooDsoState, actions: NDArray[np.float32]) -> StepResult:
        """Apply actions [num_envs, 12] for half an hour and score it."""
        wanted = set_points(self.action_channels, actions).T.reshape(len(FLEXIBLE_MW), 2, -1)
        self._shift(state, wanted[:, 0], wanted[:, 1])
        self._solve(state)
        state.t += 1
        losses_mw = power_balance(self.grid, state.grid).losses.real / 1e3
        magnitude = voltage_magnitudes(self.grid, state.grid)[self._node]
        depth = np.maximum(np.maximum(V_BAND_PU[0] - magnitude, magnitude - V_BAND_PU[1]), 0.0)
        unserved = HOURS * state.flow_mw[0].sum(axis=0)
        unserved = unserved + HOURS * state.queue_mw.sum(axis=(0, 1)) * (state.t == NUM_STEPS)
        costs = {
            "voltage_violation_pu": depth.sum(axis=0),
            "violated_buses": (depth > 0.0).sum(axis=0).astype(np.float64),
            "unserved_mwh": unserved,
        }
        indicators = {"losses_mw": losses_mw, "converged": state.grid.converged.astype(np.float64)}
        return StepResult(-LOSS_WEIGHT * losses_mw - self.config.unserved_weight * unserved, costs, indicators)

    def observe(self, state: PowerZooDsoState) -> NDArray[np.float32]:
        """Return the observations, float32 [num_envs, 68]."""
        angle = 2.0 * np.pi * state.t / NUM_STEPS
        loads_mw = state.grid.items_kw[: len(self._segment)] / 1e3
        waiting = np.stack(
            ((state.tail - state.head) / HORIZON, state.queue_mw.sum(axis=1) / (HORIZON * self._most_mw))
        )
        rows = [
            voltage_magnitudes(self.grid, state.grid)[self._node],
            np.stack([loads_mw[self._segment == n].sum(axis=0) for n in range(len(FIRST_BUSES))]),
            (state.flow_mw / self._most_mw).reshape(-1, len(angle)),
            np.minimum(waiting, 1.0).reshape(-1, len(angle)),
            np.stack((np.sin(angle), np.cos(angle))),
        ]
        return np.concatenate(rows).T.astype(np.float32)

    def voltages(self, state: PowerZooDsoState) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return PowerFlow(self.grid, state.grid).vmag_pu

    def _shift(self, state: PowerZooDsoState, curtailed: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """Take the next slot off each queue and put what is shifted out at its end."""
        unit, env = np.ix_(np.arange(len(out)), np.arange(out.shape[1]))
        back = state.queue_mw[unit, state.head, env]
        state.queue_mw[unit, state.head, env] = 0.0
        state.head = np.minimum(state.head + 1, state.tail)
        is_shifting = out > 0.0
        for slot in range(HORIZON):
            state.queue_mw[unit, state.tail + slot, env] += np.where(is_shifting, out / HORIZON, 0.0)
        state.tail = state.tail + HORIZON * is_shifting
        state.flow_mw = np.stack((curtailed, out, back))

    def _solve(self, state: PowerZooDsoState) -> None:
        """Solve with the half-hour's loads and the flexible ones' change."""
        num_loads = len(self._segment)
        step = state.day * NUM_STEPS + np.minimum(state.t, NUM_STEPS - 1)
        shape = self._shapes[step][:, self._segment].T
        state.grid.items_kw[:num_loads] = self.grid.load_kw[:, None] * shape
        state.grid.items_kvar[:num_loads] = self.grid.load_kvar[:, None] * shape
        curtailed, out, back = state.flow_mw
        state.grid.items_kw[num_loads:] = -1e3 * (curtailed + out - back)
        state.grid.items_kvar[num_loads:] = 0.0
        state.grid = solve_state(self.grid, state.grid, tolerance=SOLVER_TOLERANCE)


def _segment_shapes(
    config: PowerZooDsoConfig, load_kw: NDArray[np.float64], segment: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return a shape of mean 1 for each segment, [num_times, 3]."""
    profiles = generate_profiles(
        ProfileConfig(seed=config.seed, num_days=config.num_days, step_minutes=30), load_kw, 1
    ).load_pu.astype(np.float64)
    shapes = [profiles[:, segment == n] @ load_kw[segment == n] for n in range(len(FIRST_BUSES))]
    return np.stack([shape / shape.mean() for shape in shapes], axis=1)
