"""Meters, links and forecasts as they are: noisy, late, lost, wrong; all draws from the environment's own streams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gridray.devices.forecast import ForecastError, forecast, grown_std, next_errors, start_errors
from gridray.devices.random_streams import EnvStreams
from gridray.devices.rows import put_rows
from gridray.devices.scada import Link, LinkState, send, start_link
from gridray.devices.sensors import Sensors, SensorState, class_std, measure, start_sensors
from gridray.errors import ConfigError
from gridray.tasks.base import neutral_set_points
from gridray.tasks.observations import LOAD_CHANNEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.tasks.base import ActionChannel, ObservationChannel
    from gridray.tasks.observations import Points
    from gridray.tasks.twin import Twin

METERING, COMMANDING, FORECASTING = 101, 102, 103
"""Purposes of the streams: what a meter draws changes no outage and no arrival."""
UNMETERED = ("time.",)
"""Channels that everybody knows."""
LARGEST_DELAY = 96
FORECAST_CORRELATION = 0.9
"""Of a forecast's scaled errors at neighbouring leads, and of two issues for one time."""


@dataclass(frozen=True, kw_only=True)
class ImperfectionConfig:
    """How far what is seen and said differs from what is; by default not at all.

    voltage_class, power_class: accuracy class of meters (IEC 62053), error limit in percent at three standard
    deviations; voltages in pu or V, powers in kW, kvar or pu of kVA. Positions, states of charge and counts are exact.
    bias_class: likewise of an error that each meter keeps for an episode.
    sample_delay: steps until a sample arrives; sample_loss: probability that it never does, the last one being held.
    command_delay: steps until a set-point acts; command_loss: probability that it never does, the last one acting on
    (of a tap change: none). An episode's first set-points are standing orders: they act at once.
    forecast_error_first, forecast_error_last: standard deviation of forecasts at the first and last step ahead, share
    of the series' own standard deviation.
    """

    voltage_class: float = 0.0
    power_class: float = 0.0
    bias_class: float = 0.0
    sample_delay: int = 0
    sample_loss: float = 0.0
    command_delay: int = 0
    command_loss: float = 0.0
    forecast_error_first: float = 0.0
    forecast_error_last: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        limits = {"class": 50.0, "delay": LARGEST_DELAY, "loss": 1.0, "first": 5.0, "last": 5.0}
        for name, value in vars(self).items():
            most = limits[name.rpartition("_")[2]]
            if not 0.0 <= value <= most:
                raise ConfigError(f"{name} is {value}: give a number from 0 to {most:g}.")
        if self.forecast_error_last < self.forecast_error_first:
            raise ConfigError(
                f"forecast_error_last is {self.forecast_error_last}, below forecast_error_first "
                f"({self.forecast_error_first}): errors grow with the lead, give at least as much."
            )

    @property
    def has_meter_errors(self) -> bool:
        """Whether what is measured differs from what is."""
        return any((self.voltage_class, self.power_class, self.bias_class, self.sample_delay, self.sample_loss))

    @property
    def has_command_errors(self) -> bool:
        """Whether set-points are late or lost."""
        return any((self.command_delay, self.command_loss))


@dataclass(kw_only=True)
class ImperfectState:
    """What meters, links and forecasts remember in E environments.

    streams: by purpose; seen: float64 [num_points, E], points as they are known, physical units; meters, link: theirs;
    errors: scaled errors of the forecasts by series, [num_leads, 1, E].
    """

    streams: dict[int, EnvStreams]
    seen: NDArray[np.float64]
    meters: SensorState
    link: LinkState
    errors: dict[str, NDArray[np.float64]]


class Imperfection:
    """Meters at the points, links to the devices and forecasts of a twin."""

    def __init__(
        self, config: ImperfectionConfig, twin: Twin, points: Points, actions: Sequence[ActionChannel]
    ) -> None:
        """Equip the points and the actions."""
        self._config = config
        names = [channel.name for channel in points.channels]
        signals = {signal.channel.name: signal.series for signal in twin.signals} | {LOAD_CHANNEL.name: points.load_pu}
        self._forecasts = _forecasts(config, names, signals)
        known = tuple(f"{name}.ahead_" for name in signals) + UNMETERED
        metered = [
            i
            for i, name in enumerate(names)
            if config.has_meter_errors and name not in signals and not name.startswith(known)
        ]
        self._sensors = _sensors(config, points.channels, metered)
        number = len(actions) if config.has_command_errors else 0
        self._link = Link(np.full((number, 1), config.command_delay), np.full((number, 1), config.command_loss))
        self._is_change = np.array([channel.kind == "integer" for channel in actions], dtype=np.bool_)[:, None]
        self._neutral = np.array(list(neutral_set_points(actions, 1).values())).reshape(-1, 1)[:number]

    def new_state(self, num_points: int, num_envs: int) -> ImperfectState:
        """Return a state to be filled by `start`."""
        seeds = np.zeros(num_envs, dtype=np.uint64)
        return self._started(np.zeros((num_points, num_envs)), seeds)

    def start(
        self, state: ImperfectState, rows: NDArray[np.int64], truth: NDArray[np.float64], seeds: NDArray[np.uint64]
    ) -> None:
        """Begin episodes in these rows: points [num_points, len(rows)] have been seen, devices left alone, for long."""
        part = self._started(truth, seeds)
        for purpose, streams in state.streams.items():
            streams.restart(rows, seeds)
            streams.blocks[rows] = part.streams[purpose].blocks
        state.seen[:, rows] = part.seen
        put_rows(state.meters, rows, part.meters)
        put_rows(state.link, rows, part.link)
        for name, started in part.errors.items():
            state.errors[name][..., rows] = started

    def command(self, state: ImperfectState, set_points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what acts, [num_actions, E], when these set-points are sent."""
        if not self._config.has_command_errors:
            return set_points
        held = state.link._replace(acting=np.where(self._is_change, 0.0, state.link.acting))
        state.link = send(self._link, held, set_points, state.streams[COMMANDING])
        return state.link.acting

    def see(self, state: ImperfectState, truth: NDArray[np.float64]) -> None:
        """Measure the points [num_points, E] at the end of a step and issue new forecasts."""
        if len(self._sensors.metered):
            state.meters = measure(self._sensors, state.meters, truth, state.streams[METERING])
        streams = state.streams[FORECASTING]
        state.errors = {
            name: next_errors(error, state.errors[name], streams) for name, (_, error) in self._forecasts.items()
        }
        state.seen = self._seen(truth, state.meters, state.errors)

    def _started(self, truth: NDArray[np.float64], seeds: NDArray[np.uint64]) -> ImperfectState:
        streams = {
            purpose: EnvStreams.from_seeds(seeds, purpose=purpose) for purpose in (METERING, COMMANDING, FORECASTING)
        }
        meters = start_sensors(self._sensors, truth, streams[METERING])
        errors = {name: start_errors(error, streams[FORECASTING]) for name, (_, error) in self._forecasts.items()}
        link = start_link(self._link, np.repeat(self._neutral, len(seeds), axis=1))
        return ImperfectState(
            streams=streams, seen=self._seen(truth, meters, errors), meters=meters, link=link, errors=errors
        )

    def _seen(
        self, truth: NDArray[np.float64], meters: SensorState, errors: dict[str, NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        seen = truth.copy()
        seen[self._sensors.metered] = meters.value
        for name, (rows, error) in self._forecasts.items():
            seen[rows] = forecast(error, errors[name], truth[rows][:, None])[:, 0]
        return seen


def _sensors(config: ImperfectionConfig, channels: Sequence[ObservationChannel], metered: list[int]) -> Sensors:
    std = {"pu": config.voltage_class, "V": config.voltage_class}
    std |= dict.fromkeys(("kW", "kvar", "pu of kVA", "A"), config.power_class)
    classes = np.array([[std.get(channels[i].unit, 0.0)] for i in metered]).reshape(-1, 1)
    analog = np.array([[float(channels[i].unit in std)] for i in metered]).reshape(-1, 1)
    number = len(metered)
    return Sensors(
        metered=np.array(metered, dtype=np.int64),
        std=class_std(1.0) * classes,
        bias_std=class_std(config.bias_class) * analog,
        delay=np.full((number, 1), config.sample_delay),
        loss=np.full((number, 1), config.sample_loss),
    )


def _forecasts(
    config: ImperfectionConfig, names: list[str], series: dict[str, NDArray[np.floating]]
) -> dict[str, tuple[NDArray[np.int64], ForecastError]]:
    """Return, by series, the rows of its forecasts, by lead, and their errors."""
    found: dict[str, tuple[NDArray[np.int64], ForecastError]] = {}
    if not config.forecast_error_last:
        return found
    for name, values in series.items():
        rows = [i for i, other in enumerate(names) if re.fullmatch(re.escape(name) + r"\.ahead_\d+", other)]
        if rows:
            unit = np.full((1, 1), float(np.std(values)))
            std = grown_std(config.forecast_error_first * unit, config.forecast_error_last * unit, len(rows))
            # What is never negative is not forecast to be.
            low = np.full((1, 1), 0.0 if np.min(values) >= 0.0 else -np.inf)
            error = ForecastError(std, FORECAST_CORRELATION, FORECAST_CORRELATION, low, np.full((1, 1), np.inf))
            found[name] = (np.array(rows), error)
    return found
