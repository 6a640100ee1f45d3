"""Faults of lines and transformers, by the zone between switches that each takes out, and their repair."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.outages import OutageRates, check_rates, line_rate_per_year, step_outages
from gridray.devices.random_streams import EnvStreams
from gridray.tasks.base import ObservationChannel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel
    from gridray.tasks.fleets.zones import Zones
    from gridray.tasks.twin import TwinState

PURPOSE = 1
"""Of the stream that outages draw from."""
LINE_REPAIR_H, TRANSFORMER_REPAIR_H, REPAIR_SPREAD = 4.0, 8.0, 0.6
TRANSFORMER_FAILURES_PER_YEAR = 0.015
"""Distribution transformers; with the lines' figures as in Billinton and Allan's RBTS bus 2."""


class OutageState(NamedTuple):
    """repair_left_h: float64 [2 Z', E], lines then transformers of the zones but the source's.

    blocks: uint64 [E], drawn from the stream; first_item, first_step: int64 [1, E], the outage that the episode has
    at any rate, -1 if none.
    """

    repair_left_h: NDArray[np.float64]
    blocks: NDArray[np.uint64]
    first_item: NDArray[np.int64]
    first_step: NDArray[np.int64]


class Outages:
    """Faults come by themselves: nothing is commanded, and how long repairs take is known."""

    kind = "zone"
    quantities = ("faulted_zones",)

    def __init__(
        self, zones: Zones, step_h: float, *, failures_per_km_year: float, storm_factor: float, first_within_h: float
    ) -> None:
        """Take the zones behind the first switches.

        Args:
            zones: of the feeder.
            step_h: length of an interval, h.
            failures_per_km_year: of lines.
            storm_factor: multiplies all rates.
            first_within_h: every episode has an outage that begins in its first hours; 0 leaves it to chance.
        """
        self.names = zones.names[1:]
        self.buses = self.names
        self._step_h = step_h
        self._storm = storm_factor
        self._first_steps = round(first_within_h / step_h)
        lines = line_rate_per_year(np.full(len(self.names), failures_per_km_year), zones.line_km[1:])
        rates = np.concatenate((lines, TRANSFORMER_FAILURES_PER_YEAR * zones.num_transformers[1:]))[:, None]
        repair_h = np.repeat((LINE_REPAIR_H, TRANSFORMER_REPAIR_H), len(self.names))[:, None]
        self.rates = OutageRates(rates, repair_h, np.full_like(rates, REPAIR_SPREAD))
        check_rates(self.rates)
        self._cumulative = np.cumsum(rates) / max(float(rates.sum()), 1e-12)
        self.action_channels: tuple[ActionChannel, ...] = ()
        self.observation_channels = tuple(
            ObservationChannel(f"zone.{name}.repair_h", "h", 0.0, 0.25) for name in self.names
        )

    def new_state(self, num_envs: int) -> OutageState:
        """Return a feeder without faults."""
        none = np.full((1, num_envs), -1, dtype=np.int64)
        blocks = np.zeros(num_envs, dtype=np.uint64)
        return OutageState(np.zeros((2 * len(self.names), num_envs)), blocks, none, none.copy())

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> OutageState:  # noqa: ARG002
        """Let time pass: repairs end and faults come."""
        own: OutageState = state.fleets[self.kind]
        streams = EnvStreams(state.streams.seeds, own.blocks.copy(), PURPOSE)
        if (state.t == 0).all() and self._first_steps:
            pick, when = streams.uniform(2)
            item = np.searchsorted(self._cumulative, pick).astype(np.int64)
            first_step = (when * self._first_steps).astype(np.int64)
            own = own._replace(first_item=item[None], first_step=first_step[None])
        is_first = (np.arange(len(own.repair_left_h))[:, None] == own.first_item) & (state.t == own.first_step)
        rates = self.rates._replace(per_year=np.where(is_first, np.inf, self.rates.per_year))
        done = step_outages(rates, own.repair_left_h, streams, self._step_h, weather=self._storm)
        return own._replace(repair_left_h=done.repair_left_h, blocks=streams.blocks)

    def act(
        self,
        state: TwinState,
        set_points: NDArray[np.float64],  # noqa: ARG002
    ) -> tuple[OutageState, dict[str, NDArray[np.float64]]]:
        """Tell how many zones are out."""
        own: OutageState = state.fleets[self.kind]
        return own, {"faulted_zones": self.faulted(own)[1:].sum(axis=0).astype(np.float64)}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return the time until each zone is repaired, 0 in service."""
        return self._by_zone(state.fleets[self.kind])

    def faulted(self, own: OutageState) -> NDArray[np.bool_]:
        """Return the zones with a fault, the source's (without one) first, bool [Z, E]."""
        left = self._by_zone(own)
        return np.concatenate((np.zeros((1, left.shape[1]), dtype=np.bool_), left > 0.0))

    def _by_zone(self, own: OutageState) -> NDArray[np.float64]:
        left: NDArray[np.float64] = own.repair_left_h.reshape(2, len(self.names), -1).max(axis=0)
        return left
