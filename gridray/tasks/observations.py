"""What is seen of a twin: its full state, or only metered points; and forecasts of the load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gridray.errors import ConfigError
from gridray.tasks.base import ObservationChannel
from gridray.tasks.siting import bus_distances_km

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.twin import Twin, TwinState

LOAD_CHANNEL = ObservationChannel("load.total_pu", "pu of nominal", 0.5, 2.0)
"""Whose forecasts `load_look_ahead` adds."""


@dataclass(frozen=True, kw_only=True)
class ObservationConfig:
    """What a policy sees.

    mode: full state; metered points only; or local, a view of fixed width per device (`gridray.tasks.local_views`),
    made of what is metered. metered_buses names the buses with a voltage meter, or metered_share (0..1) spreads them
    evenly by distance from the source; with neither, no other bus than devices' own is metered in mode metered, and all
    are in mode local. Devices' own readings, the voltage at their
    buses, and the feeder's power always stay. load_look_ahead: steps ahead for which the feeder's load is forecast.
    """

    mode: Literal["full", "metered", "local"] = "full"
    metered_buses: tuple[str, ...] = ()
    metered_share: float | None = None
    load_look_ahead: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.metered_share is not None and not 0.0 <= self.metered_share <= 1.0:
            raise ConfigError(f"metered_share is {self.metered_share}: give a share from 0 to 1.")
        if self.metered_buses and self.metered_share is not None:
            raise ConfigError("metered_buses and metered_share are both given: give one of them.")
        if self.mode == "full" and (self.metered_buses or self.metered_share is not None):
            raise ConfigError("metered points are given but mode is 'full': set mode to 'metered' or 'local'.")
        if not 0 <= self.load_look_ahead <= 288:
            raise ConfigError(f"load_look_ahead is {self.load_look_ahead}: give 0 to 288 steps.")


class Points:
    """Points of a twin that are seen, in the twin's order, then the load's forecasts.

    channels: as observed; load_pu: float64 [num_series_steps], the feeder's load over its nominal one.
    """

    def __init__(self, twin: Twin, config: ObservationConfig) -> None:
        """Choose the points.

        Raises:
            ConfigError: a metered bus is not on the feeder.
        """
        self._twin = twin
        self._leads = np.arange(1, config.load_look_ahead + 1)[:, None]
        weight = twin.loads.kw / max(twin.nominal_kw, 1e-9)
        self.load_pu = twin.loads.series_pu @ weight if config.load_look_ahead else np.zeros(0)
        names = [channel.name for channel in twin.observation_channels]
        is_seen = np.ones(len(names), dtype=np.bool_)
        if config.mode == "metered" or config.metered_buses or config.metered_share is not None:
            buses = _metered_buses(twin, config)
            is_seen[:] = [not name.startswith("vmag_pu.") or bus_of(name) in buses for name in names]
        self._kept = None if is_seen.all() else np.flatnonzero(is_seen)
        self.channels: tuple[ObservationChannel, ...] = (
            *(channel for channel, seen in zip(twin.observation_channels, is_seen, strict=True) if seen),
            *(LOAD_CHANNEL._replace(name=f"{LOAD_CHANNEL.name}.ahead_{lead}") for lead in self._leads[:, 0]),
        )

    def read(self, state: TwinState) -> NDArray[np.float64]:
        """Return the points as they truly are, in physical units, [num_points, E]."""
        rows = self._twin.observe(state)
        if self._kept is not None:
            rows = rows[self._kept]
        if not len(self._leads):
            return rows
        step = self._twin.series_step(state)
        return np.concatenate((rows, self.load_pu[(step + self._leads) % len(self.load_pu)]))


def bus_of(channel: str) -> str:
    """Return the bus of a voltage channel, "vmag_pu.<bus>.<phase>"."""
    return channel.removeprefix("vmag_pu.").rpartition(".")[0]


def _metered_buses(twin: Twin, config: ObservationConfig) -> set[str]:
    """Return the buses that are metered, devices' own among them."""
    buses = list(dict.fromkeys(name.rpartition(".")[0] for name in twin.grid.node_names))
    unknown = [bus for bus in config.metered_buses if bus not in buses]
    if unknown:
        raise ConfigError(
            f"metered_buses has '{unknown[0]}', which feeder '{twin.feeder.name}' has not: name its buses."
        )
    metered = set(config.metered_buses)
    if config.metered_share is not None:
        distance = bus_distances_km(twin.feeder)
        buses.sort(key=lambda bus: (distance.get(bus, np.inf), bus))
        number = round(config.metered_share * len(buses))
        metered = {buses[i] for i in np.linspace(len(buses) - 1, 0, number).round().astype(int)} if number else set()
    return metered.union(*(fleet.buses for fleet in twin.fleets))
