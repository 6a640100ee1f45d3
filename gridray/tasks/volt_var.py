"""Volt-var control: regulator taps, capacitors, PV and battery inverters against voltage, losses and wear."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.physics.controls import MAX_STEP, TAP_STEP, settle
from gridray.physics.measure import control_voltages, power_balance, voltages
from gridray.physics.powerflow import solve_state
from gridray.physics.state import GridState, nominal_state, put
from gridray.profiles.generate import ProfileConfig, Profiles, generate_profiles
from gridray.tasks.base import ActionChannel, ObservationChannel, StepResult, scaled_observations, set_points
from gridray.tasks.siting import site_inverters

V_MIN_PU, V_MAX_PU = 0.95, 1.05
"""ANSI C84.1 range A."""
MAX_TAP_CHANGE = 4
"""Tap steps that one action may move a regulator."""
REACTIVE_SHARE = 0.44
"""Reactive power of an inverter over its rating, IEEE 1547-2018 category B."""
BATTERY_EFFICIENCY = 0.95
"""One way."""
SOLVER_TOLERANCE = 1e-6
"""Voltage tolerance of a step, pu: far below what any meter sees."""


@dataclass(frozen=True, kw_only=True)
class VoltVarConfig:
    """One utility's feeder, customers and devices, and the weights of the reward.

    load_scale multiplies the feeder's published loads; pv_share and battery_share are rated power over the sum of
    these loads. Days of the year with day % held_out_every == held_out_every - 1 are held out from training.
    The reward of a step is minus the sum of: voltage_weight x mean over nodes of the depth outside 0.95..1.05 in
    percent; loss_weight x losses over nominal load in percent; tap_weight per tap step; capacitor_weight per switching;
    curtailment_weight x curtailed power over nominal load in percent; cycling_weight x battery power likewise;
    but not below reward_floor: how badly a feeder collapses teaches nothing, and heavy tails drown what does.
    """

    feeder: str = "ieee13"
    utility: str = "default"
    seed: int = 0
    load_scale: float = 1.0
    pv_share: float = 0.5
    num_pv: int = 3
    battery_share: float = 0.1
    num_batteries: int = 1
    battery_hours: float = 4.0
    step_minutes: int = 15
    num_days: int = 365
    days: Literal["train", "held_out", "all"] = "train"
    held_out_every: int = 5
    voltage_weight: float = 20.0
    loss_weight: float = 0.05
    tap_weight: float = 0.05
    capacitor_weight: float = 0.05
    curtailment_weight: float = 0.05
    cycling_weight: float = 0.002
    reward_floor: float = -5.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("load_scale", "battery_hours"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0.")
        for name in ("pv_share", "battery_share"):
            if not 0.0 <= getattr(self, name) <= 5.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 to 5.")
        if self.step_minutes not in {1, 5, 10, 15, 30, 60}:
            raise ConfigError(f"step_minutes is {self.step_minutes}: give 1, 5, 10, 15, 30 or 60.")
        if self.held_out_every < 2 or self.num_days < self.held_out_every:
            raise ConfigError(
                f"held_out_every is {self.held_out_every} and num_days {self.num_days}: "
                "give 2 <= held_out_every <= num_days."
            )


@dataclass(kw_only=True)
class VoltVarState:
    """What changes in E environments.

    day: int64 [E]; t: int64 [E], step of the day; grid: GridState; available_kw: float64 [num_pv, E];
    kw, kvar: float64 [num_inverters, E], injected, PV first; soc: float64 [num_batteries, E], 0..1;
    loads: float64 [num_loads, E], multiplier of the nominal load.
    """

    day: NDArray[np.int64]
    t: NDArray[np.int64]
    grid: GridState
    available_kw: NDArray[np.float64]
    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]
    soc: NDArray[np.float64]
    interval_v: NDArray[np.float64]


class VoltVar:
    """Volt-var control of one utility's feeder; see VoltVarConfig for the reward."""

    name = "volt_var"
    cost_names = ("voltage_violation_pu", "tap_operations", "capacitor_operations", "curtailed_kwh", "losses_kwh")

    def __init__(self, config: VoltVarConfig) -> None:
        """Load the feeder, place the inverters and make the year's profiles."""
        self.config = config
        published = load_feeder(config.feeder)
        nominal_kw = config.load_scale * sum(load.kw for load in published.loads)
        pv, batteries = site_inverters(
            published,
            pv_kw=config.pv_share * nominal_kw,
            num_pv=config.num_pv,
            battery_kw=config.battery_share * nominal_kw,
            num_batteries=config.num_batteries,
            battery_hours=config.battery_hours,
        )
        self.feeder = published.with_generators((*pv, *batteries))
        self.grid = compile_feeder(self.feeder)
        self.num_steps = 24 * 60 // config.step_minutes
        self._nominal_kw = nominal_kw
        self._num_pv, self._num_batteries = len(pv), len(batteries)
        self._rated_kw = np.array([inverter.kw for inverter in self.feeder.generators])
        self._kva = self.grid.generator_kva
        self._kwh = np.array([battery.kwh for battery in batteries])
        self._load_kw = self.grid.load_kw * config.load_scale
        self._load_kvar = self.grid.load_kvar * config.load_scale
        self.observation_channels = self._observation_channels()
        self.action_channels = self._action_channels()
        self._profiles = _profiles(
            ProfileConfig(seed=config.seed, num_days=config.num_days, step_minutes=config.step_minutes),
            tuple(self._load_kw.tolist()),
            len(pv),
        )

    def config_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values that `make_task` takes back."""
        return asdict(self.config)

    def allowed_days(self) -> NDArray[np.int64]:
        """Return the days of the year that episodes may be drawn from."""
        days = np.arange(self.config.num_days)
        is_held_out = days % self.config.held_out_every == self.config.held_out_every - 1
        if self.config.days == "all":
            return days
        allowed: NDArray[np.int64] = days[is_held_out if self.config.days == "held_out" else ~is_held_out]
        return allowed

    def new_state(self, num_envs: int) -> VoltVarState:
        """Return a state to be filled by `reset`."""
        grid = self.grid
        return VoltVarState(
            day=np.zeros(num_envs, dtype=np.int64),
            t=np.zeros(num_envs, dtype=np.int64),
            grid=nominal_state(grid, num_envs),
            available_kw=np.zeros((self._num_pv, num_envs)),
            kw=np.zeros((len(grid.generator_names), num_envs)),
            kvar=np.zeros((len(grid.generator_names), num_envs)),
            soc=np.full((self._num_batteries, num_envs), 0.5),
            interval_v=np.ones((num_envs, grid.num_nodes)),
        )

    def reset(self, state: VoltVarState, rows: NDArray[np.int64], days: NDArray[np.int64]) -> None:
        """Start the days in these rows, as a running system: the utility's controls at rest, batteries half full."""
        part = self.new_state(len(rows))
        part.day[:] = days
        self._take_profiles(part)
        part.kw[: self._num_pv] = part.available_kw
        part.grid = settle(self.grid, self._powers(part), tolerance=SOLVER_TOLERANCE)
        part.interval_v = np.abs(voltages(self.grid, part.grid)).T
        for name in ("day", "t", "available_kw", "kw", "kvar", "soc"):
            getattr(state, name)[..., rows] = getattr(part, name)
        put(state.grid, rows, part.grid)
        state.interval_v[rows] = part.interval_v

    def step(self, state: VoltVarState, actions: NDArray[np.float32]) -> StepResult:
        """Apply actions [num_envs, num_actions] for one interval and move the time on."""
        before = state.grid
        tap_steps, capacitors = self._apply(state, actions)
        state.grid = solve_state(self.grid, self._powers(state), tolerance=SOLVER_TOLERANCE)
        result = self._score(state, tap_steps, np.abs(capacitors - before.capacitor_states).sum(axis=0))
        state.t += 1
        self._take_profiles(state)
        state.kw[: self._num_pv] = np.minimum(state.kw[: self._num_pv], state.available_kw)
        state.grid = solve_state(self.grid, self._powers(state), tolerance=SOLVER_TOLERANCE)
        return result

    def observe(self, state: VoltVarState) -> NDArray[np.float32]:
        """Return the observations, float32 [num_envs, num_observations]."""
        grid = self.grid
        v = voltages(grid, state.grid)
        source = power_balance(grid, state.grid).source
        angle = 2.0 * np.pi * (state.t % self.num_steps) / self.num_steps
        kva = self._kva[:, None]
        inverters = np.stack((state.kw / kva, state.kvar / kva), axis=1).reshape(-1, len(angle))
        rows = [
            np.abs(v),
            (state.grid.taps - 1.0) / TAP_STEP,
            control_voltages(grid, state.grid, v),
            state.grid.capacitor_states,
            state.available_kw / self._kva[: self._num_pv, None],
            inverters,
            state.soc,
            np.stack((source.real, source.imag, np.sin(angle), np.cos(angle))),
        ]
        return scaled_observations(self.observation_channels, np.concatenate(rows).T)

    def voltages(self, state: VoltVarState) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return state.interval_v

    def _take_profiles(self, state: VoltVarState) -> None:
        step = (state.day * self.num_steps + state.t) % len(self._profiles.load_pu)
        loads = self._profiles.load_pu[step].T
        num_loads = len(self._load_kw)
        state.grid.items_kw[:num_loads] = self._load_kw[:, None] * loads
        state.grid.items_kvar[:num_loads] = self._load_kvar[:, None] * loads
        rated = self._rated_kw[: self._num_pv, None]
        state.available_kw[:] = np.minimum(rated * self._profiles.pv_pu[step].T, rated)

    def _powers(self, state: VoltVarState) -> GridState:
        num_loads = len(self._load_kw)
        state.grid.items_kw[num_loads:] = -state.kw
        state.grid.items_kvar[num_loads:] = -state.kvar
        return state.grid

    def _apply(
        self, state: VoltVarState, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Move the devices; return tap steps made [num_envs] and the capacitors' new states."""
        values = set_points(self.action_channels, actions).T
        num_taps, num_capacitors = len(self.grid.tap_names), len(self.grid.capacitor_names)
        steps = np.rint((state.grid.taps - 1.0) / TAP_STEP)
        moved = np.clip(steps + values[:num_taps], -MAX_STEP, MAX_STEP)
        wanted = values[num_taps : num_taps + num_capacitors]
        capacitors = np.where(np.isnan(wanted), state.grid.capacitor_states, wanted)
        inverter = values[num_taps + num_capacitors :].reshape(len(self._kva), 2, -1)
        kw = inverter[:, 0].copy()
        kw[: self._num_pv] = np.minimum(kw[: self._num_pv], state.available_kw)
        kw[self._num_pv :] = self._charge(state, kw[self._num_pv :])
        limit = np.sqrt(np.maximum(self._kva[:, None] ** 2 - kw**2, 0.0))
        state.kw, state.kvar = kw, np.clip(inverter[:, 1], -limit, limit)
        state.grid = state.grid._replace(taps=1.0 + moved * TAP_STEP, capacitor_states=capacitors)
        return np.abs(moved - steps).sum(axis=0), capacitors

    def _charge(self, state: VoltVarState, kw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return battery power within what the energy allows (positive discharges) and update the charge."""
        hours = self.config.step_minutes / 60.0
        kwh = self._kwh[:, None]
        most = state.soc * kwh * BATTERY_EFFICIENCY / hours
        least = -(1.0 - state.soc) * kwh / BATTERY_EFFICIENCY / hours
        kw = np.clip(kw, least, most)
        drawn = np.where(kw > 0.0, kw / BATTERY_EFFICIENCY, kw * BATTERY_EFFICIENCY) * hours
        state.soc = np.clip(state.soc - drawn / np.maximum(kwh, 1e-9), 0.0, 1.0)
        return kw

    def _score(
        self, state: VoltVarState, tap_steps: NDArray[np.float64], capacitor_operations: NDArray[np.float64]
    ) -> StepResult:
        config = self.config
        hours = config.step_minutes / 60.0
        magnitude = np.abs(voltages(self.grid, state.grid)).T
        state.interval_v = magnitude
        depth = np.maximum(np.maximum(V_MIN_PU - magnitude, magnitude - V_MAX_PU), 0.0)
        losses_kw = power_balance(self.grid, state.grid).losses.real
        curtailed_kw = (state.available_kw - state.kw[: self._num_pv]).sum(axis=0)
        cycled_kw = np.abs(state.kw[self._num_pv :]).sum(axis=0)
        percent = 100.0 / self._nominal_kw
        penalty = (
            config.voltage_weight * 100.0 * depth.mean(axis=1)
            + config.loss_weight * losses_kw * percent
            + config.tap_weight * tap_steps
            + config.capacitor_weight * capacitor_operations
            + config.curtailment_weight * curtailed_kw * percent
            + config.cycling_weight * cycled_kw * percent
        )
        rewards = np.maximum(-penalty, config.reward_floor)
        costs = {
            "voltage_violation_pu": depth.sum(axis=1),
            "tap_operations": tap_steps,
            "capacitor_operations": capacitor_operations,
            "curtailed_kwh": curtailed_kw * hours,
            "losses_kwh": losses_kw * hours,
        }
        indicators = {
            "violation_share": (depth > 0.0).mean(axis=1),
            "violation_depth_pu": depth.max(axis=1),
            "converged": state.grid.converged.astype(np.float64),
        }
        return StepResult(rewards, costs, indicators)

    def _observation_channels(self) -> tuple[ObservationChannel, ...]:
        grid = self.grid
        pv, batteries = grid.generator_names[: self._num_pv], grid.generator_names[self._num_pv :]
        power = 1.0 / self._nominal_kw
        return (
            *(ObservationChannel(f"vmag_pu.{node}", "pu", 1.0, 20.0) for node in grid.node_names),
            *(ObservationChannel(f"regulator.{name}.tap", "step", 0.0, 1.0 / MAX_STEP) for name in grid.tap_names),
            *(ObservationChannel(f"regulator.{name}.control_v", "V", 120.0, 1.0 / 6.0) for name in grid.tap_names),
            *(ObservationChannel(f"capacitor.{name}.state", "1", 0.5, 2.0) for name in grid.capacitor_names),
            *(ObservationChannel(f"pv.{name}.available", "pu of kVA", 0.0, 1.0) for name in pv),
            *(
                ObservationChannel(f"{kind}.{name}.{quantity}", "pu of kVA", 0.0, 1.0)
                for kind, names in (("pv", pv), ("battery", batteries))
                for name in names
                for quantity in ("kw", "kvar")
            ),
            *(ObservationChannel(f"battery.{name}.soc", "1", 0.5, 2.0) for name in batteries),
            ObservationChannel("feeder.p_kw", "kW", 0.0, power),
            ObservationChannel("feeder.q_kvar", "kvar", 0.0, power),
            ObservationChannel("time.sin_day", "1", 0.0, 1.0),
            ObservationChannel("time.cos_day", "1", 0.0, 1.0),
        )

    def _action_channels(self) -> tuple[ActionChannel, ...]:
        grid = self.grid
        channels = [
            ActionChannel(f"regulator.{name}.tap_change", "step", -MAX_TAP_CHANGE, MAX_TAP_CHANGE, "integer")
            for name in grid.tap_names
        ]
        channels += [ActionChannel(f"capacitor.{name}.state", "1", 0.0, 1.0, "switch") for name in grid.capacitor_names]
        for index, (name, kva) in enumerate(zip(grid.generator_names, self._kva, strict=True)):
            is_pv = index < self._num_pv
            kind, rated = ("pv" if is_pv else "battery"), float(self._rated_kw[index])
            reactive = REACTIVE_SHARE * float(kva)
            channels.append(ActionChannel(f"{kind}.{name}.kw", "kW", 0.0 if is_pv else -rated, rated, "continuous"))
            channels.append(ActionChannel(f"{kind}.{name}.kvar", "kvar", -reactive, reactive, "continuous"))
        return tuple(channels)


@lru_cache(maxsize=8)
def _profiles(config: ProfileConfig, load_kw: tuple[float, ...], num_pv: int) -> Profiles:
    return generate_profiles(config, np.array(load_kw), num_pv)
