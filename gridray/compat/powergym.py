"""PowerGym's volt-var task (Fan, Lee, Wang 2022, arXiv:2109.03970; github.com/siemens/powergym)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridray.compat.bus_voltages import nodes_by_bus, read_bus_voltages
from gridray.compat.powergym_data import STEPS_PER_DAY, SYSTEMS, read_system
from gridray.compat.tap_readings import LOWEST_TAP, TAP_STEP, settle_step_by_step, tap_numbers
from gridray.errors import ConfigError
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import PowerFlow, generators_kw, power_balance
from gridray.physics.solver import solve_state
from gridray.physics.state import GridState, copy, nominal_state
from gridray.tasks.base import ActionChannel, ObservationChannel, StepResult

V_BAND_PU = (0.95, 1.05)
NUM_TAPS, NUM_LEVELS = 33, 33
IDLE = NUM_LEVELS // 2
"""Battery level at which nothing flows."""
OPERATION_WEIGHT = 1.0 / 33.0
"""Of a tap step and of a capacitor's switching."""
SOLVER_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class PowerGymConfig:
    """system: a name of SYSTEMS; data: PowerGym's folder; compat: keep the original's battery as it is.

    The original takes kvar = kW / pf, reads energy off the terminal power and rounds kWh to integers. Otherwise
    kvar = kW tan(acos pf) and nothing is rounded.
    """

    system: str = "13Bus"
    data: str
    compat: bool = True

    def __post_init__(self) -> None:
        """Refuse a system that is not there."""
        if self.system not in SYSTEMS:
            raise ConfigError(f"PowerGym has no system '{self.system}': give one of {', '.join(SYSTEMS)}.")


@dataclass(kw_only=True)
class PowerGymState:
    """What changes in E environments.

    day, t: int64 [E], profile and hour; grid: GridState; kwh: float64 [num_batteries, E];
    tap_level: int64 [num_taps, E], 0..32; tap_ratios: float64 [num_taps, E], pu, as the utility's controls leave them;
    observations: float32 [E, num_observations], of the last solution.
    """

    day: NDArray[np.int64]
    t: NDArray[np.int64]
    grid: GridState
    kwh: NDArray[np.float64]
    tap_level: NDArray[np.int64]
    tap_ratios: NDArray[np.float64]
    observations: NDArray[np.float32]


class PowerGym:
    """Capacitors, regulator taps and batteries against losses, voltage and wear, 24 hourly steps.

    Actions, as levels: capacitors 0 or 1, taps 0..32 (0.9 + 0.00625 k pu), batteries 0..32 (16 idle, above discharges).
    Observations: |V| of every node in OpenDSS's order, capacitor states, taps in pu as the original, and each battery's
    state of charge and discharge power over its rating. Reward of a step: - loss_weight * losses / power from the
    source (0..1) - sum over buses of the depth outside 0.95..1.05 pu - (capacitor switchings + tap steps) / 33 -
    discharge_weight * sum of discharge over rating - at the end of the day soc_weight * sum |soc - first soc|.
    """

    name = "powergym"
    cost_names: tuple[str, ...] = ("voltage_violation_pu", "tap_operations", "capacitor_operations", "losses_kwh")
    num_steps = STEPS_PER_DAY

    def __init__(self, config: PowerGymConfig) -> None:
        """Read the system's files, and solve the first state of every profile."""
        self.config = config
        self.weights = SYSTEMS[config.system]
        self._data = read_system(config.system, config.data)
        self.feeder = self._data.feeder
        self.grid = grid = compile_feeder(self.feeder)
        order, self._first_node = nodes_by_bus(grid, self._data.buses)
        self._row = grid.place[order]
        self._nominal = np.stack((grid.load_kw, grid.load_kvar))[:, :, None]
        self._num_capacitors, self._num_taps = len(grid.capacitor_names), len(grid.tap_names)
        pf = self._data.power_factor
        self._kvar_per_kw = (1.0 / pf if config.compat else np.tan(np.arccos(pf)))[:, None]
        self.observation_channels = self._observation_channels(tuple(grid.node_names[n] for n in order))
        self.action_channels = self._action_channels()
        self._resets = self._solve_resets()

    def config_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return asdict(self.config)

    def allowed_days(self) -> NDArray[np.int64]:
        """Return the numbers of the profiles."""
        return np.arange(len(self._data.load_pu))

    def new_state(self, num_envs: int) -> PowerGymState:
        """Return a state to be filled by `reset`: capacitors on, taps at 1.1, batteries full and idle."""
        grid = nominal_state(self.grid, num_envs)
        grid.taps[:], grid.capacitor_states[:] = 1.1, 1.0
        return PowerGymState(
            day=np.zeros(num_envs, dtype=np.int64),
            t=np.zeros(num_envs, dtype=np.int64),
            grid=grid,
            kwh=np.repeat(self._data.initial_kwh[:, None], num_envs, axis=1),
            tap_level=np.full((self._num_taps, num_envs), NUM_TAPS - 1),
            tap_ratios=np.full((self._num_taps, num_envs), 1.1),
            observations=np.zeros((num_envs, len(self.observation_channels)), dtype=np.float32),
        )

    def reset(
        self,
        state: PowerGymState,
        rows: NDArray[np.int64],
        days: NDArray[np.int64],
        seeds: NDArray[np.uint64] | None = None,  # noqa: ARG002
    ) -> None:
        """Start these profiles' days in these rows; their first states were solved once and are copied."""
        first = self._resets
        state.day[rows] = days
        state.t[rows] = 0
        copy(first.grid, days, state.grid, rows)
        state.kwh[:, rows] = first.kwh[:, days]
        state.tap_level[:, rows] = first.tap_level[:, days]
        state.tap_ratios[:, rows] = first.tap_ratios[:, days]
        state.observations = state.observations.copy()
        state.observations[rows] = first.observations[days]

    def step(self, state: PowerGymState, actions: NDArray[np.int64]) -> StepResult:
        """Apply levels [num_envs, num_actions], solve the hour's loads and score them."""
        num_capacitors, num_taps = self._num_capacitors, self._num_taps
        levels = np.asarray(actions, dtype=np.int64).T
        capacitors = levels[:num_capacitors].astype(np.float64)
        taps = levels[num_capacitors : num_capacitors + num_taps]
        charged = self._within_charge(state, levels[num_capacitors + num_taps :] - IDLE)
        switched = np.abs(capacitors - state.grid.capacitor_states).sum(axis=0)
        stepped = np.abs(taps - state.tap_level).sum(axis=0).astype(np.float64)
        state.tap_level, state.tap_ratios = taps, LOWEST_TAP + TAP_STEP * taps.astype(np.float64)
        state.grid = state.grid._replace(taps=state.tap_ratios, capacitor_states=capacitors)
        self._set_powers(state, charged * (self._data.rated_kw / IDLE)[:, None])
        state.grid = solve_state(self.grid, state.grid, tolerance=SOLVER_TOLERANCE)
        discharged = np.maximum(charged, 0).sum(axis=0) / IDLE
        return self._finish(state, stepped, switched, discharged)

    def step_utility(self, state: PowerGymState) -> StepResult:
        """Let the utility's own regulator and capacitor controls act for an hour, batteries idle."""
        before, ratios = state.grid.capacitor_states, state.tap_ratios
        self._set_powers(state, np.zeros_like(state.kwh))
        state.grid, state.tap_ratios = settle_step_by_step(self.grid, state.grid, ratios, tolerance=SOLVER_TOLERANCE)
        state.tap_level = np.rint((state.grid.taps - LOWEST_TAP) / TAP_STEP).astype(np.int64)
        stepped = np.abs(tap_numbers(state.tap_ratios) - tap_numbers(ratios)).sum(axis=0)
        switched = np.abs(state.grid.capacitor_states - before).sum(axis=0)
        return self._finish(state, stepped, switched, np.zeros(len(state.t)))

    def observe(self, state: PowerGymState) -> NDArray[np.float32]:
        """Return the observations, float32 [num_envs, num_observations]."""
        return state.observations

    def voltages(self, state: PowerGymState) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return PowerFlow(self.grid, state.grid).vmag_pu

    def _within_charge(self, state: PowerGymState, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return battery levels -16..16 cut to what the charge allows for an hour, whole levels as the original."""
        step_kw = (self._data.rated_kw / IDLE)[:, None]
        most = np.floor(state.kwh / step_kw + 1e-8)
        least = -np.floor((self._data.capacity_kwh[:, None] - state.kwh) / step_kw + 1e-8)
        return np.clip(levels, least, most)

    def _set_powers(self, state: PowerGymState, battery_kw: NDArray[np.float64]) -> None:
        """Write the hour's loads and the batteries' discharge into the state."""
        grid, num_loads = state.grid, len(self.grid.load_names)
        load_pu = self._data.load_pu[state.day, np.minimum(state.t, STEPS_PER_DAY - 1)].T
        for items, nominal in ((grid.items_kw, self._nominal[0]), (grid.items_kvar, self._nominal[1])):
            np.multiply(load_pu, nominal, out=items[:num_loads])
        grid.items_kw[num_loads:] = -battery_kw
        grid.items_kvar[num_loads:] = -battery_kw * self._kvar_per_kw

    def _finish(
        self,
        state: PowerGymState,
        stepped: NDArray[np.float64],
        switched: NDArray[np.float64],
        discharged: NDArray[np.float64],
    ) -> StepResult:
        """Charge the batteries, move the time on, observe and score."""
        losses_kw, source_kw, battery_kw = self._powers(state.grid)
        capacity = self._data.capacity_kwh[:, None]
        state.kwh = np.clip(state.kwh - battery_kw, 0.0, capacity)
        if self.config.compat:
            # Halves are common (200 kW / 16 levels): rounding noise must not decide them.
            state.kwh = np.rint(np.round(state.kwh, 6))
        state.t += 1
        depth = self._observe(state, battery_kw)
        share = np.clip(losses_kw / source_kw, 0.0, 1.0)
        unrestored = np.abs(state.kwh - self._data.initial_kwh[:, None]) / capacity
        control = (
            OPERATION_WEIGHT * (switched + stepped)
            + self.weights.discharge_weight * discharged
            + self.weights.soc_weight * unrestored.sum(axis=0) * (state.t == STEPS_PER_DAY)
        )
        costs = {
            "voltage_violation_pu": depth,
            "tap_operations": stepped,
            "capacitor_operations": switched,
            "losses_kwh": np.maximum(losses_kw, 0.0),
        }
        indicators = {"loss_share": share, "converged": state.grid.converged.astype(np.float64)}
        return StepResult(-self.weights.loss_weight * share - depth - control, costs, indicators)

    def _powers(self, state: GridState) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return losses and source power [E] and the batteries' discharge [num_batteries, E], all kW."""
        balance = power_balance(self.grid, state)
        return balance.losses.real, balance.source.real, -generators_kw(self.grid, state)

    def _observe(self, state: PowerGymState, battery_kw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fill a new array of observations and return the voltages' depth outside the band, pu, [E]."""
        num_envs, num_nodes = len(state.t), len(self._row)
        state.observations = observations = np.empty_like(state.observations)
        depth = np.empty(num_envs)
        read_bus_voltages(state.grid.v, self._row, self._first_node, V_BAND_PU, observations, depth)
        charge = state.kwh / self._data.capacity_kwh[:, None]
        power = battery_kw / self._data.rated_kw[:, None]
        batteries = np.stack((charge, power), axis=1).reshape(-1, num_envs)
        devices = np.concatenate((state.grid.capacitor_states, state.grid.taps, batteries))
        observations[:, num_nodes:] = devices.T
        return depth

    def _solve_resets(self) -> PowerGymState:
        """Return the first state of every profile; the original solves it at hour 0, which takes the day's last."""
        num_profiles = len(self._data.load_pu)
        state = self.new_state(num_profiles)
        state.day[:] = np.arange(num_profiles)
        state.t[:] = STEPS_PER_DAY - 1
        self._set_powers(state, np.zeros_like(state.kwh))
        state.grid = solve_state(self.grid, state.grid, tolerance=SOLVER_TOLERANCE)
        state.t[:] = 0
        self._observe(state, np.zeros_like(state.kwh))
        return state

    def _observation_channels(self, node_names: tuple[str, ...]) -> tuple[ObservationChannel, ...]:
        grid = self.grid
        return (
            *(ObservationChannel(f"vmag_pu.{node}", "pu", 0.0, 1.0) for node in node_names),
            *(ObservationChannel(f"capacitor.{name}.state", "1", 0.0, 1.0) for name in grid.capacitor_names),
            *(ObservationChannel(f"regulator.{name}.tap", "pu", 0.0, 1.0) for name in grid.tap_names),
            *(
                ObservationChannel(f"battery.{name}.{quantity}", unit, 0.0, 1.0)
                for name in grid.generator_names
                for quantity, unit in (("soc", "1"), ("kw", "pu of rated kW"))
            ),
        )

    def _action_channels(self) -> tuple[ActionChannel, ...]:
        grid = self.grid
        return (
            *(ActionChannel(f"capacitor.{name}.state", "1", 0, 1, "level", 1) for name in grid.capacitor_names),
            *(
                ActionChannel(f"regulator.{name}.tap", "step", 0, NUM_TAPS - 1, "level", NUM_TAPS - 1)
                for name in grid.tap_names
            ),
            *(
                ActionChannel(f"battery.{name}.level", "1/16 of rated kW", 0, NUM_LEVELS - 1, "level", IDLE)
                for name in grid.generator_names
            ),
        )
