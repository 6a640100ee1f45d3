"""A feeder that lives through time: loads, fleets of devices and signals, stepped for many environments at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gridray.devices.random_streams import EnvStreams
from gridray.devices.regulator import TapTimer, fresh_timer
from gridray.devices.rows import put_rows
from gridray.physics.columns import copy_columns
from gridray.physics.controls import settle
from gridray.physics.measure import power_balance, source_power, voltage_magnitudes
from gridray.physics.solver import solve_state
from gridray.physics.state import GridState, copy, nominal_state, take
from gridray.tasks.base import ObservationChannel
from gridray.tasks.constraints import Constraints, voltage_depths
from gridray.tasks.day_starts import DayStarts
from gridray.tasks.tap_delays import settle_in_time, tap_timing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.measure import PowerBalance
    from gridray.tasks.base import ActionChannel
    from gridray.tasks.constraints import VoltageDepths
    from gridray.tasks.fleets.base import Fleet
    from gridray.tasks.twin_config import TwinConfig

SOLVER_TOLERANCE = 1e-6
"""Voltage tolerance of a step, pu: far below what any meter sees."""


class Calendar(NamedTuple):
    """How a year is cut into episodes of a day: step_h, length of a step, h; steps a day; first step; days."""

    step_h: float
    num_steps: int
    first_step: int
    num_days: int


class Loads(NamedTuple):
    """The customers of a feeder.

    kw, kvar: float64 [num_loads], nominal power; series_pu: float32 [num_series_steps, num_loads], multiplier of both.
    """

    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]
    series_pu: NDArray[np.float32]


class Signal(NamedTuple):
    """What all see but nobody in the feeder sets, such as a price.

    channel: how it is observed; series: float32 [num_series_steps]; look_ahead: values ahead that are known (and
    observed beside it, "<name>.ahead_<k>"); stride: steps between them, ahead_<k> being k strides away.
    """

    channel: ObservationChannel
    series: NDArray[np.float32]
    look_ahead: int = 0
    stride: int = 1


@dataclass(kw_only=True)
class TwinState:
    """What changes in E environments.

    day, t: int64 [E], day of the series and step of the day; grid: GridState; vmag_pu: float64 [num_nodes, E], its
    voltage magnitudes, pu, in the order of node_names; fleets: own state by kind; streams: each environment's random
    numbers; interval_v: float64 [num_nodes, E], voltage magnitudes of the last interval, pu; window_v: float64
    [num_nodes or 0, E], their sum in the current 10 minutes, if a step is shorter; tap_timer: how long the feeder's own
    regulators have been outside their bands, [num_taps, E], or [0, E] if they move without delay; heat: float64
    [num_elements, E], of rated lines and transformers, 1 at the rating, or [0, E] without a thermal image.
    """

    day: NDArray[np.int64]
    t: NDArray[np.int64]
    grid: GridState
    vmag_pu: NDArray[np.float64]
    fleets: dict[str, Any]
    streams: EnvStreams
    interval_v: NDArray[np.float64]
    window_v: NDArray[np.float64]
    tap_timer: TapTimer
    heat: NDArray[np.float64]


class Interval(NamedTuple):
    """What happened in one interval, after the actions.

    vmag_pu: float64 [num_nodes, E]; balance: powers; quantities: by name, float64 [E], as the fleets report them;
    depths: of the voltages outside their ranges; costs: by the names of `constraints.CONSTRAINT_COSTS`, float64 [E].
    """

    vmag_pu: NDArray[np.float64]
    balance: PowerBalance
    quantities: dict[str, NDArray[np.float64]]
    depths: VoltageDepths
    costs: dict[str, NDArray[np.float64]]


def calendar(step_minutes: int, num_days: int, first_hour: int = 0) -> Calendar:
    """Return the calendar of a twin with this step whose episodes begin first_hour hours after midnight."""
    return Calendar(step_minutes / 60.0, 24 * 60 // step_minutes, first_hour * 60 // step_minutes, num_days)


class Twin:
    """Feeder, loads, fleets and signals on one clock.

    Within an interval the fleets act on their set-points, then the power flow is solved; `has_local_controls` lets the
    feeder's own regulator and capacitor controls settle after each action, as where nobody commands them; with a
    `regulator_delay_scale` above 0 its regulators move only once their delays have run: an interval is then what its
    end brings. Episodes begin first_hour hours after midnight.
    """

    def __init__(  # noqa: PLR0913
        self,
        config: TwinConfig,
        feeder: Feeder,
        grid: CompiledFeeder,
        loads: Loads,
        fleets: Sequence[Fleet],
        *,
        signals: Sequence[Signal] = (),
        has_local_controls: bool = False,
        first_hour: int = 0,
    ) -> None:
        """Put the parts together."""
        self.feeder, self.grid, self.loads = feeder, grid, loads
        self.fleets = tuple(fleets)
        self.signals = tuple(signals)
        self.step_h, self.num_steps, self.first_step, _ = calendar(config.step_minutes, 0, first_hour)
        self.nominal_kw = float(loads.kw.sum())
        self.constraints = Constraints(feeder, grid, config.step_minutes, has_thermal_image=config.has_thermal_image)
        self._has_local_controls = has_local_controls
        delay_scale = config.regulator_delay_scale if has_local_controls else 0.0
        self._tap_timing = tap_timing(feeder, grid, delay_scale) if delay_scale > 0.0 else None
        self._starts = DayStarts(grid, SOLVER_TOLERANCE)
        self.action_channels: tuple[ActionChannel, ...] = sum((fleet.action_channels for fleet in self.fleets), ())
        self.observation_channels = self._observation_channels()

    def new_state(self, num_envs: int) -> TwinState:
        """Return a state to be filled by `reset`."""
        state = self._unsolved(num_envs)
        state.vmag_pu, state.interval_v = (np.ones((self.grid.num_nodes, num_envs)) for _ in range(2))
        state.window_v = self.constraints.new_window(num_envs)
        state.heat = self.constraints.heat(state.grid)
        return state

    def reset(
        self, state: TwinState, rows: NDArray[np.int64], days: NDArray[np.int64], seeds: NDArray[np.uint64]
    ) -> None:
        """Start the days in these rows, as a running system: the utility's controls at rest."""
        part = self._unsolved(len(rows))
        part.day[:] = days
        part.streams.restart(np.arange(len(rows)), seeds)
        self._begin(part)
        state.day[rows], state.t[rows] = days, 0
        copy(*self._starts.settled(days, part.grid), state.grid, rows)
        state.vmag_pu = voltage_magnitudes(self.grid, state.grid)
        copy_columns(state.vmag_pu, rows, state.interval_v, rows)
        state.window_v[:, rows] = 0.0
        if len(state.heat):
            state.heat[:, rows] = self.constraints.heat(take(state.grid, rows))
        for kind, own in part.fleets.items():
            put_rows(state.fleets[kind], rows, own)
        put_rows(state.tap_timer, rows, part.tap_timer)
        state.streams.restart(rows, seeds)
        state.streams.blocks[rows] = part.streams.blocks

    def interval(self, state: TwinState, set_points: NDArray[np.float64]) -> Interval:
        """Let the fleets act on set-points [num_actions, E] and solve."""
        quantities: dict[str, NDArray[np.float64]] = {}
        first = 0
        for fleet in self.fleets:
            last = first + len(fleet.action_channels)
            state.fleets[fleet.kind], reported = fleet.act(state, set_points[first:last])
            for name, value in reported.items():
                quantities[name] = quantities[name] + value if name in quantities else value
            first = last
        self._solve(state, 3600.0 * self.step_h)
        state.interval_v = state.vmag_pu
        refused = quantities.get("refused_operations", np.zeros(len(state.t)))
        depths = voltage_depths(state.interval_v)
        costs = self.constraints.costs(state, refused, depths)
        return Interval(state.interval_v, power_balance(self.grid, state.grid), quantities, depths, costs)

    def move_on(self, state: TwinState) -> None:
        """Begin the next interval and solve it with the devices as they are."""
        state.t += 1
        self._begin(state)
        self._solve(state)

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return everything observable in physical units, [num_observations, E]."""
        source = source_power(self.grid, state.grid)
        angle = 2.0 * np.pi * ((self.first_step + state.t) % self.num_steps) / self.num_steps
        rows = [state.vmag_pu, *(fleet.observe(state) for fleet in self.fleets)]
        rows += [np.stack((source.real, source.imag, np.sin(angle), np.cos(angle)))]
        step = self.series_step(state)
        for signal in self.signals:
            ahead = signal.stride * np.arange(signal.look_ahead + 1)[:, None]
            rows.append(signal.series[(step + ahead) % len(signal.series)])
        return np.concatenate(rows)

    def _unsolved(self, num_envs: int) -> TwinState:
        """Return a state whose voltages are not read: enough for devices and customers to begin."""
        none = np.empty((self.grid.num_nodes, 0))
        return TwinState(
            day=np.zeros(num_envs, dtype=np.int64),
            t=np.zeros(num_envs, dtype=np.int64),
            grid=nominal_state(self.grid, num_envs),
            vmag_pu=none,
            fleets={fleet.kind: fleet.new_state(num_envs) for fleet in self.fleets},
            streams=EnvStreams.from_seeds(np.zeros(num_envs, dtype=np.uint64)),
            interval_v=none,
            window_v=none,
            tap_timer=fresh_timer(0 if self._tap_timing is None else len(self.grid.tap_names), num_envs),
            heat=none,
        )

    def _begin(self, state: TwinState) -> None:
        step = self.series_step(state)
        multiplier = self.loads.series_pu[step].T
        num_loads = len(self.loads.kw)
        np.multiply(self.loads.kw[:, None], multiplier, out=state.grid.items_kw[:num_loads])
        np.multiply(self.loads.kvar[:, None], multiplier, out=state.grid.items_kvar[:num_loads])
        for fleet in self.fleets:
            state.fleets[fleet.kind] = fleet.begin(state, step)

    def series_step(self, state: TwinState) -> NDArray[np.int64]:
        """Return the step of the year's series in which each environment is, int64 [E]."""
        step: NDArray[np.int64] = (state.day * self.num_steps + self.first_step + state.t) % len(self.loads.series_pu)
        return step

    def _solve(self, state: TwinState, passed_s: float = 0.0) -> None:
        if self._tap_timing is not None:
            state.grid, state.tap_timer = settle_in_time(
                self.grid, state.grid, self._tap_timing, state.tap_timer, passed_s, tolerance=SOLVER_TOLERANCE
            )
        else:
            solve = settle if self._has_local_controls else solve_state
            state.grid = solve(self.grid, state.grid, tolerance=SOLVER_TOLERANCE)
        state.vmag_pu = voltage_magnitudes(self.grid, state.grid)

    def _observation_channels(self) -> tuple[ObservationChannel, ...]:
        power = 1.0 / self.nominal_kw
        channels = [ObservationChannel(f"vmag_pu.{node}", "pu", 1.0, 20.0) for node in self.grid.node_names]
        for fleet in self.fleets:
            channels += fleet.observation_channels
        channels += [
            ObservationChannel("feeder.p_kw", "kW", 0.0, power),
            ObservationChannel("feeder.q_kvar", "kvar", 0.0, power),
            ObservationChannel("time.sin_day", "1", 0.0, 1.0),
            ObservationChannel("time.cos_day", "1", 0.0, 1.0),
        ]
        for signal in self.signals:
            channels.append(signal.channel)
            channels += [
                signal.channel._replace(name=f"{signal.channel.name}.ahead_{lead}")
                for lead in range(1, signal.look_ahead + 1)
            ]
        return tuple(channels)
