"""What a network must keep to, as costs of every step with the same names in all tasks."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.devices.protection import thermal_image
from gridray.physics.flows import element_ratings, flows, loadings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState
    from gridray.tasks.twin import TwinState

RANGE_A_PU = (0.95, 1.05)
"""ANSI C84.1 range A, of service voltages."""
RANGE_B_PU = (0.917, 1.058)
"""ANSI C84.1 range B: infrequent and limited in time."""
EN50160_PU = (0.9, 1.1)
"""EN 50160: 95 % of a week's 10-minute means lie within."""
EN50160_MIN = 10
TIME_CONSTANT_S = {"line": 600.0, "transformer": 10800.0}
"""Of the thermal image: overhead conductors take 5 to 20 min (IEEE 738), the oil of distribution transformers 3 h."""
UNBALANCE_PERCENT = 2.0
"""Negative over positive sequence, compatibility level of IEC 61000-2-2 and limit of EN 50160."""
CONSTRAINT_COSTS = (
    "voltage_violation_pu",
    "voltage_range_b_pu",
    "voltage_en50160_share",
    "thermal_overload_pu",
    "unbalance_percent",
    "refused_operations",
)
"""Names of what `Constraints.costs` returns.

voltage_violation_pu: sum over nodes of the depth outside ANSI range A; voltage_range_b_pu: the same of range B.
voltage_en50160_share: share of nodes whose 10-minute mean is outside +-10 %; mean over a week, at most 5 % are allowed.
Steps shorter than 10 minutes are averaged and counted when the 10 minutes end; longer ones count as one mean.
thermal_overload_pu: sum over lines with a rating and transformers of what the fullest conductor carries above it; with
a thermal image, of what a steady current that makes it as hot as it is would be above it.
unbalance_percent: sum over three-phase buses of what negative over positive sequence exceeds 2 %.
refused_operations: switchings, tap steps and switch commands that budgets, dead times or protection do not allow.
A node without supply violates no voltage: its customers are interrupted, which is another cost.
"""


class VoltageDepths(NamedTuple):
    """Sums over the live nodes of E environments, float64 [E].

    range_a_pu, range_b_pu: depth outside the ranges, pu; share_a: nodes outside range A over all nodes; deepest_pu:
    largest depth outside range A.
    """

    range_a_pu: NDArray[np.float64]
    range_b_pu: NDArray[np.float64]
    share_a: NDArray[np.float64]
    deepest_pu: NDArray[np.float64]


class Constraints:
    """The limits of one feeder, and what a step costs of each.

    ratings_a: A, by element; flows: what `loadings` reads of them.
    """

    def __init__(
        self, feeder: Feeder, grid: CompiledFeeder, step_minutes: int, *, has_thermal_image: bool = False
    ) -> None:
        """Take ratings and three-phase buses of a feeder; `grid` is compiled from it."""
        self.ratings_a = element_ratings(feeder)
        self.flows = flows(feeder, grid, self.ratings_a)
        self._buses = three_phase_places(grid)
        self._num_nodes = grid.num_nodes
        self._steps_in_window = max(EN50160_MIN // step_minutes, 1)
        self._step_s = 60.0 * step_minutes
        kinds = [name.partition(".")[0] for name in self.ratings_a] if has_thermal_image else []
        self._time_constant_s = np.array([TIME_CONSTANT_S[kind] for kind in kinds])[:, None]

    def new_window(self, num_envs: int) -> NDArray[np.float64]:
        """Return sums of voltages of the current 10 minutes, pu, [num_nodes, E]; no rows where a step is as long."""
        return np.zeros((self._num_nodes if self._steps_in_window > 1 else 0, num_envs))

    def heat(self, grid: GridState) -> NDArray[np.float64]:
        """Return how hot rated elements are after long enough at these currents, 1 at their rating, [num_elements, E].

        Without a thermal image there are no rows.
        """
        if len(self._time_constant_s) == 0:
            return np.zeros((0, grid.v.shape[2]))
        return loadings(self.flows, grid) ** 2

    def costs(
        self, state: TwinState, refused: NDArray[np.float64], depths: VoltageDepths
    ) -> dict[str, NDArray[np.float64]]:
        """Return the costs of the interval that `state` has solved, by the names of CONSTRAINT_COSTS, [E] each.

        refused: operations that were asked but not allowed, [E]; depths: of the interval's voltages.
        """
        return {
            "voltage_violation_pu": depths.range_a_pu,
            "voltage_range_b_pu": depths.range_b_pu,
            "voltage_en50160_share": self._en50160_share(state),
            "thermal_overload_pu": np.maximum(self._judged_loadings(state) - 1.0, 0.0).sum(axis=0),
            "unbalance_percent": np.maximum(unbalance_percent(self._buses, state.grid.v) - UNBALANCE_PERCENT, 0.0).sum(
                axis=0
            ),
            "refused_operations": refused,
        }

    def loadings(self, state: TwinState) -> NDArray[np.float64]:
        """Return current over rating of the elements of `ratings_a`, [num_elements, E]."""
        return loadings(self.flows, state.grid)

    def _judged_loadings(self, state: TwinState) -> NDArray[np.float64]:
        """Return present loadings, or the steady ones of the heat; what has no power flow heats nothing."""
        present = self.loadings(state)
        if len(self._time_constant_s) == 0:
            return present
        after = thermal_image(state.heat, present, self._time_constant_s, self._step_s)
        state.heat = np.where(state.grid.converged, after, state.heat)
        return np.sqrt(state.heat)

    def _en50160_share(self, state: TwinState) -> NDArray[np.float64]:
        if self._steps_in_window == 1:
            return _outside_share(state.interval_v, *EN50160_PU)
        state.window_v += state.interval_v
        is_end = (state.t + 1) % self._steps_in_window == 0
        if not is_end.any():
            return np.zeros(len(is_end))
        share = np.where(is_end, _outside_share(state.window_v / self._steps_in_window, *EN50160_PU), 0.0)
        state.window_v[:, is_end] = 0.0
        return share


def voltage_depths(vmag_pu: NDArray[np.float64]) -> VoltageDepths:
    """Return how far the voltages, [num_nodes, E], are outside the ranges of ANSI C84.1."""
    rows = np.zeros((4, vmag_pu.shape[1]))
    _depths(vmag_pu, *RANGE_A_PU, *RANGE_B_PU, rows)
    rows[2] /= len(vmag_pu)
    return VoltageDepths(*rows)


def three_phase_places(grid: CompiledFeeder) -> NDArray[np.int64]:
    """Return nodes 1, 2, 3 of every bus that has them, elimination order, int64 [num_buses, 3]."""
    row = {name: n for n, name in enumerate(grid.node_names)}
    buses = dict.fromkeys(name.rpartition(".")[0] for name in grid.node_names)
    triples = [[row.get(f"{bus}.{phase}", -1) for phase in (1, 2, 3)] for bus in buses]
    whole = np.array([triple for triple in triples if min(triple) >= 0], dtype=np.int64).reshape(-1, 3)
    places: NDArray[np.int64] = grid.place[whole].astype(np.int64)
    return places


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def unbalance_percent(places: NDArray[np.int64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return negative over positive sequence of buses, percent, [num_buses, E], 0 without voltage (IEC 61000-3-13).

    With a = -1/2 + j sqrt(3)/2, 3 V1 = Va + a Vb + a^2 Vc = s - j w and 3 V2 = s + j w, where
    s = Va - (Vb + Vc) / 2 and w = -sqrt(3)/2 (Vb - Vc).

    Args:
        places: nodes of the buses' phases, elimination order, [num_buses, 3].
        v: voltages, elimination order, pu, [N, 2, E].
    """
    num_envs = v.shape[2]
    percent = np.zeros((places.shape[0], num_envs))
    half = 0.5 * np.sqrt(3.0)
    for bus in range(places.shape[0]):
        a, b, c = places[bus, 0], places[bus, 1], places[bus, 2]
        for env in range(num_envs):
            sr = v[a, 0, env] - 0.5 * (v[b, 0, env] + v[c, 0, env])
            si = v[a, 1, env] - 0.5 * (v[b, 1, env] + v[c, 1, env])
            wr = -half * (v[b, 0, env] - v[c, 0, env])
            wi = -half * (v[b, 1, env] - v[c, 1, env])
            positive = (sr + wi) * (sr + wi) + (si - wr) * (si - wr)
            negative = (sr - wi) * (sr - wi) + (si + wr) * (si + wr)
            percent[bus, env] = 100.0 * np.sqrt(negative / positive) if positive > 0.0 else 0.0
    return percent


@njit(cache=True, nogil=True, error_model="numpy")
def _depths(
    vmag: NDArray[np.float64], low_a: float, high_a: float, low_b: float, high_b: float, rows: NDArray[np.float64]
) -> None:
    """Add up depth outside A, depth outside B, nodes outside A and the largest depth of the live nodes."""
    for node in range(vmag.shape[0]):
        for env in range(vmag.shape[1]):
            v = vmag[node, env]
            live = 1.0 if v > 0.0 else 0.0
            depth = live * max(low_a - v, v - high_a, 0.0)
            rows[0, env] += depth
            rows[1, env] += live * max(low_b - v, v - high_b, 0.0)
            rows[2, env] += 1.0 if depth > 0.0 else 0.0
            rows[3, env] = max(rows[3, env], depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _outside_share(vmag: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return the share of nodes that are live and outside low..high."""
    share = np.zeros(vmag.shape[1])
    for node in range(vmag.shape[0]):
        for env in range(vmag.shape[1]):
            v = vmag[node, env]
            share[env] += 1.0 if (v > 0.0) & ((v < low) | (v > high)) else 0.0
    share /= vmag.shape[0]
    return share
