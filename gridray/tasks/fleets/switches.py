"""Sectionalising and tie switches with breakers: commanded, tripped by protection, and kept radial."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.protection import INVERSE_CURVES, Relay, step_relay
from gridray.devices.switching import OperationState, can_operate
from gridray.physics.flows import element_ratings, flows, loadings
from gridray.tasks.base import ActionChannel, ObservationChannel
from gridray.tasks.fleets.operations import OperationBudget, budgeted
from gridray.tasks.fleets.zones import protect, switch_over

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.tasks.fleets.outages import Outages
    from gridray.tasks.fleets.zones import Zones
    from gridray.tasks.twin import TwinState


class SwitchState(NamedTuple):
    """What J switches did and which of Z zones have supply.

    used, rested_s: float64 [J, E], as of OperationState; relay: float64 [J, E], how far each overcurrent relay is to
    its trip at 1; was_supplied, is_supplied: bool [Z, E], before and after the switchings of the interval.
    """

    used: NDArray[np.float64]
    rested_s: NDArray[np.float64]
    relay: NDArray[np.float64]
    was_supplied: NDArray[np.bool_]
    is_supplied: NDArray[np.bool_]


class Switches:
    """The switches between zones; an action closes, opens or keeps each.

    At the start of an interval faults and overcurrents of the one before open switches by themselves. Commands follow,
    openings first; what would make a loop, feed a fault, or comes too often is refused.
    """

    kind = "switch"
    quantities = ("switch_operations", "refused_operations")

    def __init__(  # noqa: PLR0913
        self,
        feeder: Feeder,
        grid: CompiledFeeder,
        zones: Zones,
        outages: Outages,
        *,
        step_h: float,
        budget: OperationBudget,
        pickup: float,
    ) -> None:
        """Take the switches of a compiled feeder.

        Args:
            feeder: with its switches.
            grid: compiled from it.
            zones: between the switches.
            outages: fleet that acts before this one.
            step_h: length of an interval, h.
            budget: how often each may operate by command.
            pickup: current above which a relay times, over the rating of the line that a switch is in.
        """
        self.names = zones.switches
        lines = {line.name: line for line in feeder.lines}
        self.buses = tuple(lines[name].from_bus for name in self.names)
        self.zones = zones
        self._grid, self._outages, self._step_h, self._budget = grid, outages, step_h, budget
        self._rows = np.array([grid.switch_names.index(name) for name in self.names], dtype=np.int64)
        self._flows = flows(feeder, grid, {f"line.{name}": 1.0 for name in self.names})
        num = len(self.names)
        pickup_a = pickup * np.array([_rating_a(feeder, name) for name in self.names])[:, None]
        k_s, alpha = INVERSE_CURVES["very"]
        self.relay = Relay(pickup_a, np.ones((num, 1)), np.full((num, 1), k_s), np.full((num, 1), alpha))
        self.action_channels = tuple(
            ActionChannel(f"switch.{name}.state", "1", 0.0, 1.0, "switch", None) for name in self.names
        )
        self.observation_channels = (
            *(
                ObservationChannel(f"switch.{name}.{quantity}", "1", 0.5, 2.0)
                for name in self.names
                for quantity in ("state", "may_switch")
            ),
            *(ObservationChannel(f"zone.{name}.is_supplied", "1", 0.5, 2.0) for name in zones.names),
        )

    def new_state(self, num_envs: int) -> SwitchState:
        """Return switches that have not moved, and zones with supply."""
        shape = (len(self.names), num_envs)
        supplied = np.ones((len(self.zones.names), num_envs), dtype=np.bool_)
        return SwitchState(np.zeros(shape), np.full(shape, np.inf), np.zeros(shape), supplied, supplied.copy())

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> SwitchState:  # noqa: ARG002
        """Let relays and protection open what they must."""
        own: SwitchState = state.fleets[self.kind]
        closed = state.grid.switch_closed[self._rows]
        relay = step_relay(self.relay, own.relay, loadings(self._flows, state.grid), 3600.0 * self._step_h)
        trips = (relay >= 1.0) & (closed == 1.0) & (state.t > 0)
        relay = np.where(trips | (state.t == 0), 0.0, relay)
        after = np.where(trips, 0.0, closed)
        supplied = protect(self.zones.ends, self._outages.faulted(state.fleets[self._outages.kind]), after)
        self._set(state, closed, after)
        return own._replace(
            relay=relay,
            rested_s=np.where(after != closed, 0.0, own.rested_s),
            was_supplied=supplied,
            is_supplied=supplied,
        )

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[SwitchState, dict[str, NDArray[np.float64]]]:
        """Follow the commands that are allowed."""
        own: SwitchState = state.fleets[self.kind]
        closed = state.grid.switch_closed[self._rows]
        faulted = self._outages.faulted(state.fleets[self._outages.kind])
        after = closed.copy()
        refused = switch_over(self.zones.ends, faulted, self._ready(own), set_points, after)
        made, operated, beyond = budgeted(
            self._budget, OperationState(own.used, own.rested_s), after - closed, self._step_h
        )
        self._set(state, closed, after)
        supplied = protect(self.zones.ends, faulted, after)
        own = own._replace(used=operated.used, rested_s=operated.rested_s, is_supplied=supplied)
        return own, {
            "switch_operations": np.abs(made).sum(axis=0),
            "refused_operations": refused + beyond,
        }

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return positions, whether each switch may be moved to its other one, and the zones with supply."""
        own: SwitchState = state.fleets[self.kind]
        closed = state.grid.switch_closed[self._rows]
        num_envs = closed.shape[1]
        switches = np.stack((closed, self.may_switch(state)), axis=1).reshape(2 * len(self.names), num_envs)
        return np.concatenate((switches, own.is_supplied))

    def may_switch(self, state: TwinState) -> NDArray[np.bool_]:
        """Return the mask of valid actions, bool [J, E]: switches that alone could go to their other position."""
        own: SwitchState = state.fleets[self.kind]
        closed = state.grid.switch_closed[self._rows]
        faulted = self._outages.faulted(state.fleets[self._outages.kind])
        ready = self._ready(own)
        may = np.empty(closed.shape, dtype=np.bool_)
        for j in range(len(self.names)):
            wanted = np.full_like(closed, np.nan)
            wanted[j] = 1.0 - closed[j]
            may[j] = switch_over(self.zones.ends, faulted, ready, wanted, closed.copy()) == 0.0
        return may

    def _ready(self, own: SwitchState) -> NDArray[np.bool_]:
        if not self._budget.is_enforced:
            return np.ones(own.used.shape, dtype=np.bool_)
        return can_operate(self._budget.limits(len(self.names)), OperationState(own.used, own.rested_s))

    def _set(self, state: TwinState, before: NDArray[np.float64], after: NDArray[np.float64]) -> None:
        """Write positions to the grid; where one moved the search for voltages starts from the nominal ones."""
        moved = np.flatnonzero((before != after).any(axis=0))
        state.grid.switch_closed[self._rows] = after
        state.grid.v[:, :, moved] = self._grid.nominal_v[:, :, None]


def _rating_a(feeder: Feeder, name: str) -> float:
    """Return the rating of a switched line, or that of the strongest line at its weaker end; infinite without any."""
    ratings = element_ratings(feeder)
    if f"line.{name}" in ratings:
        return ratings[f"line.{name}"]
    line = next(line for line in feeder.lines if line.name == name)
    ends = []
    for bus in (line.from_bus, line.to_bus):
        beside = [
            other.rating_a
            for other in feeder.lines
            if other.rating_a is not None
            and set(line.phases) <= set(other.phases)
            and bus in {other.from_bus, other.to_bus}
        ]
        ends.append(max(beside, default=np.inf))
    return min(ends)
