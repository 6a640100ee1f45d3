"""What tasks on a twin share: the customers' configuration, days, observations and voltages; a task adds its score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from gridray.errors import ConfigError
from gridray.profiles.generate import ProfileConfig, Profiles, generate_profiles
from gridray.tasks.scaling import action_ranges, decode_rows, observation_scales, observe_rows
from gridray.tasks.twin import Loads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.tasks.base import StepResult
    from gridray.tasks.twin import Interval, Twin, TwinState


@dataclass(frozen=True, kw_only=True)
class TwinConfig:
    """One utility's feeder and customers.

    feeder: name or path; seed: of the customers' series; load_scale multiplies the feeder's published loads. Days of
    the year with day % held_out_every == held_out_every - 1 are held out from training.
    """

    feeder: str = "ieee13"
    utility: str = "default"
    seed: int = 0
    load_scale: float = 1.0
    step_minutes: int = 15
    num_days: int = 365
    days: Literal["train", "held_out", "all"] = "train"
    held_out_every: int = 5

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.load_scale > 0.0:
            raise ConfigError(f"load_scale is {self.load_scale}: give a number above 0.")
        if self.step_minutes not in {1, 5, 10, 15, 30, 60}:
            raise ConfigError(f"step_minutes is {self.step_minutes}: give 1, 5, 10, 15, 30 or 60.")
        if self.held_out_every < 2 or self.num_days < self.held_out_every:
            raise ConfigError(
                f"held_out_every is {self.held_out_every} and num_days {self.num_days}: "
                "give 2 <= held_out_every <= num_days."
            )

    def check_shares(self, *names: str) -> None:
        """Refuse fields of these names that are no share from 0 to 5."""
        for name in names:
            if not 0.0 <= getattr(self, name) <= 5.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 to 5.")


class TwinTask(ABC):
    """A task whose feeder, customers and devices are a twin's; a subclass says what a step is worth."""

    name: ClassVar[str]
    cost_names: ClassVar[tuple[str, ...]]

    def __init__(self, config: TwinConfig, twin: Twin) -> None:
        """Keep the parts."""
        self.config = config
        self.twin = twin
        self.feeder, self.grid = twin.feeder, twin.grid
        self.observation_channels, self.action_channels = twin.observation_channels, twin.action_channels
        self.num_steps = twin.num_steps
        self._scales, self._ranges = observation_scales(self.observation_channels), action_ranges(self.action_channels)

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

    def new_state(self, num_envs: int) -> TwinState:
        """Return a state to be filled by `reset`."""
        return self.twin.new_state(num_envs)

    def reset(
        self, state: TwinState, rows: NDArray[np.int64], days: NDArray[np.int64], seeds: NDArray[np.uint64]
    ) -> None:
        """Start the days in these rows, as a running system."""
        self.twin.reset(state, rows, days, seeds)

    def step(self, state: TwinState, actions: NDArray[np.float32]) -> StepResult:
        """Apply actions [num_envs, num_actions] for one interval and move the time on."""
        interval = self.twin.interval(state, decode_rows(self._ranges, actions))
        result = self.score(state, interval)
        self.twin.move_on(state)
        return result

    def observe(self, state: TwinState) -> NDArray[np.float32]:
        """Return the observations, float32 [num_envs, num_observations]."""
        return observe_rows(self._scales, self.twin.observe(state))

    def voltages(self, state: TwinState) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return state.interval_v.T


def customers(config: TwinConfig, grid: CompiledFeeder, num_pv: int) -> tuple[Loads, NDArray[np.float32]]:
    """Return the loads of a compiled feeder and PV power available, pu, [num_series_steps, num_pv]."""
    kw, kvar = grid.load_kw * config.load_scale, grid.load_kvar * config.load_scale
    profile = ProfileConfig(seed=config.seed, num_days=config.num_days, step_minutes=config.step_minutes)
    profiles = _profiles(profile, tuple(kw.tolist()), num_pv)
    return Loads(kw, kvar, profiles.load_pu), profiles.pv_pu


@lru_cache(maxsize=8)
def _profiles(config: ProfileConfig, load_kw: tuple[float, ...], num_pv: int) -> Profiles:
    return generate_profiles(config, np.array(load_kw), num_pv)
