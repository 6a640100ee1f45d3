"""MAPDN's active voltage control (Wang et al. 2021, arXiv:2110.14300; github.com/Future-Power-Networks/MAPDN)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gridray.compat.mapdn_data import GRIDS, STEP_MINUTES, read_grid
from gridray.errors import ConfigError
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import PowerFlow, node_voltages, power_balance
from gridray.physics.solver import solve_state
from gridray.physics.state import GridState, nominal_state, put, take
from gridray.tasks.base import ActionChannel, ObservationChannel, StepResult, set_points

V_BAND_PU = (0.95, 1.05)
RATING = 1.2
"""kVA over the largest kW of a PV."""
MOST_OUTSIDE = 1e-3
"""Share of buses that may lie outside the band in a step that counts as controlled."""
UNSOLVED_PENALTY = 200.0
SOLVER_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class MapdnConfig:
    """grid: 33, 141 or 322 buses; data: folder of its tables; profiles: folder of the original's CSV files.

    barrier: penalty on the voltage; q_weight: of mean |q| in Mvar; num_days: of generated series; noise: the
    original's noise on loads and PV; reset_action: start with random reactive power.
    """

    grid: str = "33"
    data: str
    profiles: str | None = None
    barrier: Literal["l1", "l2", "bowl"] = "l1"
    q_weight: float = 0.1
    num_days: int = 30
    seed: int = 0
    noise: bool = True
    reset_action: bool = True

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.grid not in GRIDS:
            raise ConfigError(f"MAPDN has no grid of {self.grid} buses: give one of {', '.join(GRIDS)}.")
        if self.num_days < 1:
            raise ConfigError(f"num_days is {self.num_days}: give at least 1.")


@dataclass(kw_only=True)
class MapdnState:
    """What changes in E environments.

    day: int64 [E], 3-minute interval at which the episode starts; t: int64 [E]; grid: GridState;
    pv_kw, pv_kvar: float64 [num_pv, E]; bus_kva: complex128 [num_buses, E], drawn at the last solution (the source's
    bus negative); v: complex128 [num_buses, E], pu; loss: float64 [E], minus the last reward.
    """

    day: NDArray[np.int64]
    t: NDArray[np.int64]
    grid: GridState
    pv_kw: NDArray[np.float64]
    pv_kvar: NDArray[np.float64]
    bus_kva: NDArray[np.complex128]
    v: NDArray[np.complex128]
    loss: NDArray[np.float64]


class Mapdn:
    """Reactive power of PV inverters against voltages out of 0.95..1.05 pu, in steps of 3 minutes, 240 an episode.

    Actions: a in [-s, s] for each PV, s = 0.8, 0.6, 0.8; q = a sqrt((1.2 p_max)^2 - p^2). Observations (its global
    state): MW and Mvar drawn at each bus, MW and Mvar of each PV, |V| in pu and angle in degrees of each bus; what each
    agent sees is in `agent_observations`. Reward: - mean over buses of the barrier - q_weight mean |q| in Mvar. An
    unsolved power flow costs 200 and ends the episode. As in the original an action meets the loads and PV on which it
    was decided, and the first interval comes twice. Noise belongs to the interval: who meets it twice sees it again.
    """

    name = "mapdn"
    cost_names: tuple[str, ...] = ("voltage_violation_pu", "losses_kwh")
    num_steps = 240

    def __init__(self, config: MapdnConfig) -> None:
        """Read the grid and its series."""
        self.config = config
        data = read_grid(
            config.grid,
            config.data,
            profiles=config.profiles,
            num_days=config.num_days,
            seed=config.seed,
            noise=config.noise,
        )
        self._data = data
        self.feeder = data.feeder
        self.grid = grid = compile_feeder(data.feeder)
        self._node = np.array([grid.node_names.index(f"{bus}.1") for bus in data.buses])
        self._source_bus = data.buses.index(data.feeder.source.bus)
        load_bus = np.array([data.buses.index(load.bus) for load in data.feeder.loads])
        self._loads_at, self._pv_at = _incidence(load_bus, len(data.buses)), _incidence(data.pv_bus, len(data.buses))
        self._rating_kva = RATING * data.pv_kw.max(axis=0).astype(np.float64)
        scale = GRIDS[config.grid].action_scale
        pv_names = grid.generator_names
        self.action_channels = tuple(
            ActionChannel(f"pv.{name}.q", "share of free kVA", -scale, scale, "continuous") for name in pv_names
        )
        self.observation_channels = _channels(data.buses, pv_names)
        self._view = _agent_view(data.zone, data.pv_bus)
        num_starts = len(self.allowed_days())
        rng = np.random.default_rng(config.seed)
        self._first_actions = rng.uniform(-scale, scale, (num_starts, len(pv_names))) * config.reset_action

    def config_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return asdict(self.config)

    def allowed_days(self) -> NDArray[np.int64]:
        """Return the intervals at which an episode may start."""
        num_starts = len(self._data.load_kw) - self.num_steps - 1
        if num_starts < 1:
            raise ConfigError(
                f"The series have {len(self._data.load_kw)} intervals: give at least {self.num_steps + 2}."
            )
        return np.arange(num_starts)

    def new_state(self, num_envs: int) -> MapdnState:
        """Return a state to be filled by `reset`."""
        num_pv, num_buses = len(self.grid.generator_names), len(self._data.buses)
        return MapdnState(
            day=np.zeros(num_envs, dtype=np.int64),
            t=np.zeros(num_envs, dtype=np.int64),
            grid=nominal_state(self.grid, num_envs),
            pv_kw=np.zeros((num_pv, num_envs)),
            pv_kvar=np.zeros((num_pv, num_envs)),
            bus_kva=np.zeros((num_buses, num_envs), dtype=np.complex128),
            v=np.ones((num_buses, num_envs), dtype=np.complex128),
            loss=np.zeros(num_envs),
        )

    def reset(
        self,
        state: MapdnState,
        rows: NDArray[np.int64],
        days: NDArray[np.int64],
        seeds: NDArray[np.uint64] | None = None,  # noqa: ARG002
    ) -> None:
        """Start episodes at these intervals in these rows."""
        part = self.new_state(len(rows))
        part.day[:] = days
        self._take_profiles(part)
        self._solve(part, self._first_actions[days].T)
        for name in ("day", "t", "pv_kw", "pv_kvar", "bus_kva", "v", "loss"):
            getattr(state, name)[..., rows] = getattr(part, name)
        put(state.grid, rows, take(part.grid, np.arange(len(rows))))

    def step(self, state: MapdnState, actions: NDArray[np.float32]) -> StepResult:
        """Apply actions [num_envs, num_pv], score them and bring the next interval's loads and PV."""
        before = state.v, state.bus_kva, state.loss
        self._solve(state, set_points(self.action_channels, actions).T)
        solved = state.grid.converged
        losses_kw = np.where(solved, power_balance(self.grid, state.grid).losses.real, 0.0)
        state.v, state.bus_kva = (
            np.where(solved, new, old) for new, old in zip((state.v, state.bus_kva), before, strict=False)
        )
        state.loss = np.where(solved, state.loss, before[2])
        magnitude = np.abs(state.v)
        depth = np.maximum(np.maximum(V_BAND_PU[0] - magnitude, magnitude - V_BAND_PU[1]), 0.0)
        outside = (depth > 0.0).mean(axis=0)
        indicators = {
            "controllable": (solved & (outside <= MOST_OUTSIDE)).astype(np.float64),
            "q_loss_mvar": np.abs(state.pv_kvar).mean(axis=0) / 1e3,
            "violation_share": outside,
            "converged": solved.astype(np.float64),
        }
        costs = {
            "voltage_violation_pu": depth.sum(axis=0),
            "losses_kwh": np.maximum(losses_kw, 0.0) * STEP_MINUTES / 60.0,
        }
        rewards = -state.loss - UNSOLVED_PENALTY * ~solved
        state.t = np.where(solved, state.t + 1, self.num_steps)
        self._take_profiles(state)
        return StepResult(rewards, costs, indicators)

    def observe(self, state: MapdnState) -> NDArray[np.float32]:
        """Return the global state, float32 [num_envs, num_observations]."""
        parts = (state.bus_kva.real / 1e3, state.bus_kva.imag / 1e3, state.pv_kw / 1e3, state.pv_kvar / 1e3)
        rows = np.concatenate((*parts, np.abs(state.v), np.degrees(np.angle(state.v))))
        return rows.T.astype(np.float32)

    def agent_observations(self, state: MapdnState) -> NDArray[np.float32]:
        """Return what each PV's agent sees of its zone, float32 [num_envs, num_pv, width], zeros at the end.

        MW and Mvar of demand at the zone's buses, its own MW and Mvar, |V| in pu and angle in radians of the buses.
        """
        demand = state.bus_kva + self._pv_at @ (state.pv_kw + 1j * state.pv_kvar)
        parts = (demand.real / 1e3, demand.imag / 1e3, state.pv_kw / 1e3, state.pv_kvar / 1e3)
        rows = np.concatenate((*parts, np.abs(state.v), np.angle(state.v), np.zeros((1, len(state.t)))))
        return np.moveaxis(rows[self._view], 2, 0).astype(np.float32)

    def voltages(self, state: MapdnState) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return PowerFlow(self.grid, state.grid).vmag_pu

    def droop(self, state: MapdnState, *, full_at_pu: float = 0.05) -> NDArray[np.float32]:
        """Return actions in [-1, 1] that fall linearly from 1 at 1 - full_at_pu to -1 at 1 + full_at_pu."""
        magnitude = np.abs(state.v[self._data.pv_bus])
        return np.clip((1.0 - magnitude) / full_at_pu, -1.0, 1.0).T.astype(np.float32)

    def _take_profiles(self, state: MapdnState) -> None:
        num_loads = len(self.grid.load_names)
        at = state.day + np.clip(state.t, 1, self.num_steps)
        state.grid.items_kw[:num_loads] = self._data.load_kw[at].T
        state.grid.items_kvar[:num_loads] = self._data.load_kvar[at].T
        state.pv_kw = self._data.pv_kw[at].T.astype(np.float64)

    def _solve(self, state: MapdnState, shares: NDArray[np.float64]) -> None:
        """Set reactive power, shares [num_pv, E] of what the rating leaves, and read the solution."""
        grid, num_loads = self.grid, len(self.grid.load_names)
        free = np.sqrt(np.maximum(self._rating_kva[:, None] ** 2 - state.pv_kw**2, 0.0))
        state.pv_kvar = shares * free
        state.grid.items_kw[num_loads:] = -state.pv_kw
        state.grid.items_kvar[num_loads:] = -state.pv_kvar
        state.grid = solve_state(grid, state.grid, tolerance=SOLVER_TOLERANCE)
        loads = state.grid.items_kw[:num_loads] + 1j * state.grid.items_kvar[:num_loads]
        state.bus_kva = self._loads_at @ loads - self._pv_at @ (state.pv_kw + 1j * state.pv_kvar)
        state.bus_kva[self._source_bus] -= power_balance(grid, state.grid).source
        state.v = node_voltages(grid, state.grid)[self._node]
        barrier = voltage_barrier(np.abs(state.v), self.config.barrier).mean(axis=0)
        state.loss = barrier + self.config.q_weight * np.abs(state.pv_kvar).mean(axis=0) / 1e3


def voltage_barrier(v_pu: NDArray[np.float64], kind: Literal["l1", "l2", "bowl"]) -> NDArray[np.float64]:
    """Return the penalty of each voltage: |v - 1|, 2 (v - 1)^2, or a bowl with straight walls outside 0.95..1.05."""
    distance = np.abs(v_pu - 1.0)
    if kind == "l1":
        return distance
    if kind == "l2":
        return 2.0 * distance**2
    scale = 0.1
    density = np.exp(-0.5 * (distance / scale) ** 2) / (scale * np.sqrt(2.0 * np.pi))
    bowl: NDArray[np.float64] = np.where(distance > 0.05, 2.0 * distance - 0.095, 0.04 - 0.01 * density)
    return bowl


def _incidence(bus: NDArray[np.int64], num_buses: int) -> Any:  # noqa: ANN401
    """Return a sparse matrix [num_buses, num_items] that sums items by bus."""
    return csr_array((np.ones(len(bus)), (bus, np.arange(len(bus)))), shape=(num_buses, len(bus)))


def _agent_view(zone: NDArray[np.int64], pv_bus: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows of (demand MW, Mvar, PV MW, Mvar, |V|, angle, 0) that each agent sees, [num_pv, width]."""
    num_buses, num_pv = len(zone), len(pv_bus)
    views = []
    for number, bus in enumerate(pv_bus):
        own = np.flatnonzero(zone == zone[bus])
        pv = 2 * num_buses + number
        after = 2 * num_buses + 2 * num_pv
        views.append(np.concatenate((own, num_buses + own, [pv, pv + num_pv], after + own, after + num_buses + own)))
    width = max(len(view) for view in views)
    zero = 4 * num_buses + 2 * num_pv
    return np.array([np.pad(view, (0, width - len(view)), constant_values=zero) for view in views])


def _channels(buses: tuple[str, ...], pv_names: tuple[str, ...]) -> tuple[ObservationChannel, ...]:
    by_bus = (("p", "MW"), ("q", "Mvar")), (("vmag", "pu"), ("angle", "deg"))
    first, last = (
        [ObservationChannel(f"bus.{bus}.{name}", unit, 0.0, 1.0) for name, unit in names for bus in buses]
        for names in by_bus
    )
    pv = [
        ObservationChannel(f"pv.{pv}.{name}", unit, 0.0, 1.0)
        for name, unit in (("p", "MW"), ("q", "Mvar"))
        for pv in pv_names
    ]
    return (*first, *pv, *last)
