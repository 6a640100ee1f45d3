"""What tasks on a twin share: days, observations and voltages; a task adds its score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gridray.profiles.generate import ProfileConfig, Profiles, generate_profiles
from gridray.tasks.imperfection import Imperfection, ImperfectionConfig, ImperfectState
from gridray.tasks.local_views import LocalViews, fill_views
from gridray.tasks.observations import Points
from gridray.tasks.own_series import own_series
from gridray.tasks.scaling import action_ranges, decode_rows, observation_scales, observe_rows
from gridray.tasks.twin import Loads, TwinState
from gridray.tasks.view_layout import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.tasks.base import StepResult
    from gridray.tasks.twin import Interval, Twin
    from gridray.tasks.twin_config import TwinConfig


@dataclass(kw_only=True)
class TaskState(TwinState):
    """The twin's state, and that of meters, links and forecasts where they are imperfect."""

    imperfect: ImperfectState | None = None


class TwinTask(ABC):
    """A task whose feeder, customers and devices are a twin's; a subclass says what a step is worth."""

    name: ClassVar[str]
    cost_names: ClassVar[tuple[str, ...]]

    def __init__(self, config: TwinConfig, twin: Twin) -> None:
        """Keep the parts."""
        self.config = config
        self.twin = twin
        self.feeder, self.grid = twin.feeder, twin.grid
        self.action_channels = twin.action_channels
        self.num_steps = twin.num_steps
        self._points = Points(twin, config.observation)
        self._scales, self._ranges = observation_scales(self._points.channels), action_ranges(self.action_channels)
        self._imperfection = (
            Imperfection(config.imperfection, twin, self._points, self.action_channels)
            if config.imperfection != ImperfectionConfig()
            else None
        )
        self._is_local = config.observation.mode == "local"
        self.observation_channels = self.local_views.channels if self._is_local else self._points.channels

    @cached_property
    def local_views(self) -> LocalViews:
        """A view of fixed width per device, made of what is metered, and actions by device."""
        return LocalViews(self.twin, self._points.channels)

    def views(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the local views, float32 [num_envs, num_devices, width], of this task's observations in any mode."""
        return fill_views(self.view_layout, observations)

    @cached_property
    def view_layout(self) -> Layout:
        """Where the features of the local views stand in this task's own observations."""
        if not self._is_local:
            return self.local_views.layout
        shape = (self.local_views.num_devices, self.local_views.width)
        nothing = np.zeros(0, dtype=np.int64)
        return Layout(np.arange(np.prod(shape)).reshape(shape), np.zeros(shape, np.float32), np.zeros(1, int), nothing)

    @abstractmethod
    def score(self, state: TwinState, interval: Interval) -> StepResult:
        """Return reward, costs and indicators of an interval."""

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

    def new_state(self, num_envs: int) -> TaskState:
        """Return a state to be filled by `reset`."""
        twin_state = self.twin.new_state(num_envs)
        state = TaskState(**{item.name: getattr(twin_state, item.name) for item in fields(twin_state)})
        if self._imperfection is not None:
            state.imperfect = self._imperfection.new_state(len(self._points.channels), num_envs)
        return state

    def reset(
        self, state: TaskState, rows: NDArray[np.int64], days: NDArray[np.int64], seeds: NDArray[np.uint64]
    ) -> None:
        """Start the days in these rows, as a running system."""
        self.twin.reset(state, rows, days, seeds)
        if self._imperfection is not None and state.imperfect is not None:
            self._imperfection.start(state.imperfect, rows, self._points.read(state)[:, rows], seeds)

    def step(self, state: TaskState, actions: NDArray[np.float32]) -> StepResult:
        """Apply actions [num_envs, num_actions] for one interval and move the time on."""
        set_points = decode_rows(self._ranges, actions)
        if self._imperfection is not None and state.imperfect is not None:
            set_points = self._imperfection.command(state.imperfect, set_points)
        interval = self.twin.interval(state, set_points)
        result = self.score(state, interval)
        self.twin.move_on(state)
        if self._imperfection is not None and state.imperfect is not None:
            self._imperfection.see(state.imperfect, self._points.read(state))
        powers = {"source_kw": interval.balance.source.real, "grid_losses_kw": interval.balance.losses.real}
        return result._replace(indicators=result.indicators | powers)

    def observe(self, state: TaskState) -> NDArray[np.float32]:
        """Return the observations, float32 [num_envs, num_observations]."""
        physical = self._points.read(state) if state.imperfect is None else state.imperfect.seen
        observations = observe_rows(self._scales, physical)
        if self._is_local:
            return self.local_views.views(observations).reshape(len(observations), -1)
        return observations

    def voltages(self, state: TwinState) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return state.interval_v.T


def customers(config: TwinConfig, grid: CompiledFeeder, num_pv: int) -> tuple[Loads, NDArray[np.float32]]:
    """Return the loads of a compiled feeder and PV power available, pu, [num_series_steps, num_pv].

    The feeder's first num_pv generators are the PV.
    """
    kw, kvar = grid.load_kw * config.load_scale, grid.load_kvar * config.load_scale
    clock = {"num_days": config.num_days, "step_minutes": config.step_minutes}
    files = config.series
    profiles = _profiles(ProfileConfig(seed=config.seed, **clock), tuple(kw.tolist()), num_pv)
    load_pu, pv_pu = profiles.load_pu, profiles.pv_pu
    if files.load is not None:
        load_pu, unit = own_series("load", files.load, grid.load_names, **clock)
        if unit == "kW":
            nominal = grid.load_kw.astype(np.float32)
            load_pu = np.divide(load_pu, nominal, out=np.zeros_like(load_pu), where=nominal != 0.0)
    if files.pv is not None:
        pv_pu, _ = own_series("pv", files.pv, grid.generator_names[:num_pv], **clock)
    return Loads(kw, kvar, load_pu), pv_pu


@lru_cache(maxsize=8)
def _profiles(config: ProfileConfig, load_kw: tuple[float, ...], num_pv: int) -> Profiles:
    return generate_profiles(config, np.array(load_kw), num_pv)
