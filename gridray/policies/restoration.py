"""What a utility switches after a fault: isolate it, feed the rest over ties that carry it, go back when repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.physics.controls import settle
from gridray.physics.flows import element_ratings, flows, loadings
from gridray.physics.measure import voltage_magnitudes
from gridray.physics.state import nominal_state
from gridray.tasks.constraints import RANGE_B_PU
from gridray.tasks.fleets.zones import find_zones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import Task


class Restoration:
    """Fault location, isolation and service restoration (FLISR) with the switches between zones.

    Where the switches should be follows from the faulted zones alone: as normal, but open beside a fault; then zones
    without supply are taken back one by one, over the feeder's own switches first, each if the power flow at planned
    load keeps ratings and ANSI C84.1's range B, or is no worse than the normal state. What has no supply stays as it
    is. After the repair all goes back.
    """

    def __init__(self, task: Task, seen: Sequence[str]) -> None:
        """Take the switches of a task's feeder; seen: names of the observations, which have the zones' repair times."""
        zones = find_zones(task.feeder)
        self.names, self._ends = zones.switches, zones.ends
        self._repair = [seen.index(f"zone.{zone}.repair_h") for zone in zones.names[1:]]
        self._grid = task.grid
        self._rows = [task.grid.switch_names.index(name) for name in self.names]
        self._flows = flows(task.feeder, task.grid, element_ratings(task.feeder))
        is_open = {line.name: line.is_open for line in task.feeder.lines}
        self._normal = np.array([not is_open[name] for name in self.names])
        self._load_scale = float(task.config.load_scale)
        self._limits = (1.0, RANGE_B_PU[0])
        loading, lowest = self._extremes(self._normal)
        self._limits = (max(1.0, loading), min(RANGE_B_PU[0], lowest))
        self._found: dict[bytes, NDArray[np.float64]] = {}

    def positions(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where each switch should be, 1 closed, 0 open, NaN as it is, [num_switches, num_envs].

        seen: physical observations, [num_envs, num_observations].
        """
        faulted = np.zeros((len(seen), len(self._repair) + 1), dtype=np.bool_)
        faulted[:, 1:] = seen[:, self._repair] > 0.0
        cases, case = np.unique(faulted, axis=0, return_inverse=True)
        found = np.stack([self._target(one) for one in cases], axis=1)
        wanted: NDArray[np.float64] = found[:, case.ravel()]
        return wanted

    def _target(self, faulted: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the positions for these faulted zones, bool [Z], as `positions` does."""
        key = faulted.tobytes()
        if key not in self._found:
            closed, supplied = self._restored(faulted)
            has_supply = supplied[self._ends].any(axis=1)
            self._found[key] = np.where(has_supply, closed.astype(np.float64), np.nan)
        return self._found[key]

    def _restored(self, faulted: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which switches to close and which zones get supply so, bool [J] and [Z]."""
        closed = np.zeros(len(self._normal), dtype=np.bool_)
        supplied = np.zeros(len(faulted), dtype=np.bool_)
        supplied[0] = True
        own_first = np.argsort(~self._normal, kind="stable")
        refused: set[int] = set()
        while True:
            near = supplied[self._ends]
            may = (near[:, 0] != near[:, 1]) & ~faulted[self._ends].any(axis=1)
            tried = next((int(j) for j in own_first if may[j] and int(j) not in refused), None)
            if tried is None:
                return closed, supplied
            closed[tried] = True
            loading, lowest = self._extremes(closed)
            if loading <= self._limits[0] and lowest >= self._limits[1]:
                supplied[self._ends[tried]] = True
            else:
                closed[tried] = False
                refused.add(tried)

    def _extremes(self, closed: NDArray[np.bool_]) -> tuple[float, float]:
        """Return the highest loading and the lowest live voltage at planned load; none without a power flow."""
        state = nominal_state(self._grid, 1)
        state.items_kw[:] *= self._load_scale
        state.items_kvar[:] *= self._load_scale
        state.switch_closed[self._rows, 0] = closed
        state = settle(self._grid, state)
        if not state.converged.all():
            return np.inf, 0.0
        v = voltage_magnitudes(self._grid, state)
        return float(loadings(self._flows, state).max(initial=0.0)), float(v[v > 0.0].min())
