"""gym-anm's ANM6Easy: curtailment and storage on six buses (Henry, Ernst 2021; github.com/robinhenry/gym-anm)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gridray.compat.anm6_data import (
    BASE_MVA,
    BRANCHES,
    CAPACITY_MWH,
    EFFICIENCY,
    LOAD_Q_PER_P,
    SOLAR,
    STEPS_PER_DAY,
    STORAGE,
    WIND,
    Unit,
    load_series,
    network,
    potential_series,
)
from gridray.errors import ConfigError
from gridray.physics.compiled import compile_feeder
from gridray.physics.measure import PowerFlow, node_voltages, power_balance
from gridray.physics.solver import solve_state
from gridray.physics.state import GridState, nominal_state, put
from gridray.tasks.base import ActionChannel, ObservationChannel, StepResult, set_points

HOURS = 0.25
DISCOUNT = 0.995
PENALTY_WEIGHT = 100.0
MOST_LOSS, MOST_PENALTY = 1.0, 100.0
"""Costs of a step are cut here."""
V_BAND_PU = (0.9, 1.1)
NUM_DRAWS = 16
"""First charges and reactive powers drawn for each time of the day."""
SOLVER_TOLERANCE = 1e-7


@dataclass(frozen=True, kw_only=True)
class Anm6Config:
    """num_steps: quarter hours of an episode (the original never ends; its discount is 0.995); seed: first charges.

    compat: as the original takes its per-unit limits for MWh and Mvar when it draws the first state, the storage starts
    with 0 to 1 of its 100 MWh; otherwise with 0 to 100.
    """

    num_steps: int = 3000
    seed: int = 0
    compat: bool = True

    def __post_init__(self) -> None:
        """Refuse an empty episode."""
        if self.num_steps < 1:
            raise ConfigError(f"num_steps is {self.num_steps}: give at least 1.")


@dataclass(kw_only=True)
class Anm6State:
    """What changes in E environments.

    day: int64 [E], number of the start; t: int64 [E]; grid: GridState; mw, mvar: float64 [3, E], injected by solar,
    wind and storage; potential_mw: float64 [2, E]; charge_mwh: float64 [E]; source_mva: complex128 [E].
    """

    day: NDArray[np.int64]
    t: NDArray[np.int64]
    grid: GridState
    mw: NDArray[np.float64]
    mvar: NDArray[np.float64]
    potential_mw: NDArray[np.float64]
    charge_mwh: NDArray[np.float64]
    source_mva: NDArray[np.complex128]


class Anm6Easy:
    """Curtail sun and wind and run a storage so that little energy is lost and no limit broken.

    Actions: MW of solar and wind, their Mvar, MW and Mvar of the storage (discharge positive), each mapped to the
    nearest point that the device can reach. Observations: MW and Mvar injected by source, load, solar, load, wind,
    load, storage; MWh stored; MW available from sun and wind; quarter of the day. Reward: - energy lost, curtailed or
    stored (pu h, cut at 1) - 100 x 0.25 h x (depth of voltages outside 0.9..1.1 + MVA above branch ratings, pu; cut at
    100). Without a solution -100 / (1 - 0.995), and the episode ends.
    """

    name = "anm6_easy"
    cost_names: tuple[str, ...] = ("voltage_violation_pu", "overload_pu")

    def __init__(self, config: Anm6Config) -> None:
        """Compile the network and draw the first charges."""
        self.config = config
        self.num_steps = config.num_steps
        self.feeder = network()
        self.grid = compile_feeder(self.feeder)
        self._node = np.array([self.grid.node_names.index(f"{bus}.1") for bus in range(6)])
        self._load_mw, self._potential_mw = load_series(), potential_series()
        rng = np.random.default_rng(config.seed)
        num_starts = NUM_DRAWS * STEPS_PER_DAY
        unit = 1.0 / BASE_MVA if config.compat else 1.0
        self._first_charge = rng.uniform(0.0, unit * CAPACITY_MWH, num_starts)
        self._first_mvar = unit * rng.uniform(-1.0, 1.0, (2, num_starts)) * np.array([[SOLAR.max_q], [WIND.max_q]])
        units = (("solar", SOLAR), ("wind", WIND))
        self.action_channels = (
            *(
                ActionChannel(f"{name}.p", "MW", unit.min_p, unit.max_p, "continuous", unit.max_p)
                for name, unit in units
            ),
            *(ActionChannel(f"{name}.q", "Mvar", -unit.max_q, unit.max_q, "continuous") for name, unit in units),
            ActionChannel("storage.p", "MW", STORAGE.min_p, STORAGE.max_p, "continuous"),
            ActionChannel("storage.q", "Mvar", -STORAGE.max_q, STORAGE.max_q, "continuous"),
        )
        devices = ("source", "load1", "solar", "load2", "wind", "load3", "storage")
        named = [(f"{device}.{q}", unit) for q, unit in (("p", "MW"), ("q", "Mvar")) for device in devices]
        named += [("storage.charge", "MWh"), ("solar.potential", "MW"), ("wind.potential", "MW"), ("time.step", "1")]
        self.observation_channels = tuple(ObservationChannel(name, unit, 0.0, 1.0) for name, unit in named)

    def config_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return asdict(self.config)

    def allowed_days(self) -> NDArray[np.int64]:
        """Return the numbers of the starts: start % 96 is the quarter of the day."""
        return np.arange(NUM_DRAWS * STEPS_PER_DAY)

    def new_state(self, num_envs: int) -> Anm6State:
        """Return a state to be filled by `reset`."""
        return Anm6State(
            day=np.zeros(num_envs, dtype=np.int64),
            t=np.zeros(num_envs, dtype=np.int64),
            grid=nominal_state(self.grid, num_envs),
            mw=np.zeros((3, num_envs)),
            mvar=np.zeros((3, num_envs)),
            potential_mw=np.zeros((2, num_envs)),
            charge_mwh=np.zeros(num_envs),
            source_mva=np.zeros(num_envs, dtype=np.complex128),
        )

    def reset(
        self,
        state: Anm6State,
        rows: NDArray[np.int64],
        days: NDArray[np.int64],
        seeds: NDArray[np.uint64] | None = None,  # noqa: ARG002  # the start decides what is drawn
    ) -> None:
        """Start with everything available injected, drawn reactive power and a drawn charge."""
        part = self.new_state(len(rows))
        part.day[:] = days
        part.charge_mwh[:] = self._first_charge[days]
        self._take_series(part)
        wanted = np.zeros((6, len(rows)))
        wanted[:2], wanted[2:4] = part.potential_mw, self._first_mvar[:, days]
        self._inject(part, wanted)
        self._solve(part)
        for name in ("day", "t", "mw", "mvar", "potential_mw", "charge_mwh", "source_mva"):
            getattr(state, name)[..., rows] = getattr(part, name)
        put(state.grid, rows, part.grid)

    def step(self, state: Anm6State, actions: NDArray[np.float32]) -> StepResult:
        """Apply actions [num_envs, 6] to the next quarter hour's loads, sun and wind."""
        state.t += 1
        self._take_series(state)
        self._inject(state, set_points(self.action_channels, actions).T)
        storage_mw = state.mw[2]
        drawn = np.where(storage_mw <= 0.0, storage_mw * EFFICIENCY, storage_mw / EFFICIENCY)
        state.charge_mwh = np.clip(state.charge_mwh - HOURS * drawn, 0.0, CAPACITY_MWH)
        self._solve(state)
        solved = state.grid.converged
        loads_mw = state.grid.items_kw[:3].sum(axis=0) / 1e3
        lost_mw = state.source_mva.real + state.mw[:2].sum(axis=0) - loads_mw
        curtailed_mw = (state.potential_mw - state.mw[:2]).sum(axis=0)
        loss = np.clip(HOURS * (lost_mw + curtailed_mw) / BASE_MVA, -MOST_LOSS, MOST_LOSS)
        depth, overload = self._violations(state.grid)
        penalty = np.clip(HOURS * PENALTY_WEIGHT * (depth + overload), 0.0, MOST_PENALTY)
        rewards = np.where(solved, -loss - penalty, -MOST_PENALTY / (1.0 - DISCOUNT))
        state.t = np.where(solved, state.t, self.num_steps)
        costs = {"voltage_violation_pu": depth, "overload_pu": overload}
        indicators = {"curtailed_mwh": HOURS * curtailed_mw, "converged": solved.astype(np.float64)}
        return StepResult(rewards, costs, indicators)

    def observe(self, state: Anm6State) -> NDArray[np.float32]:
        """Return the observations, float32 [num_envs, 18]."""
        loads = -(state.grid.items_kw[:3] + 1j * state.grid.items_kvar[:3]) / 1e3
        units = state.mw + 1j * state.mvar
        s = np.stack((state.source_mva, loads[0], units[0], loads[1], units[1], loads[2], units[2]))
        quarter = (state.day + state.t) % STEPS_PER_DAY
        rows = np.concatenate((s.real, s.imag, state.charge_mwh[None], state.potential_mw, quarter[None]))
        return rows.T.astype(np.float32)

    def voltages(self, state: Anm6State) -> NDArray[np.float64]:
        """Return voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return PowerFlow(self.grid, state.grid).vmag_pu

    def _take_series(self, state: Anm6State) -> None:
        quarter = (state.day + state.t) % STEPS_PER_DAY
        state.grid.items_kw[:3] = 1e3 * self._load_mw[:, quarter]
        state.grid.items_kvar[:3] = LOAD_Q_PER_P * state.grid.items_kw[:3]
        state.potential_mw = self._potential_mw[:, quarter]

    def _inject(self, state: Anm6State, wanted: NDArray[np.float64]) -> None:
        """Map wanted powers (rows as the actions, MW and Mvar) to what the devices can do."""
        low = np.maximum(STORAGE.min_p, (state.charge_mwh - CAPACITY_MWH) / (HOURS * EFFICIENCY))
        high = np.minimum(STORAGE.max_p, EFFICIENCY * state.charge_mwh / HOURS)
        none = np.zeros_like(low)
        limits = ((SOLAR, none, state.potential_mw[0]), (WIND, none, state.potential_mw[1]), (STORAGE, low, high))
        points = ((wanted[0], wanted[2]), (wanted[1], wanted[3]), (wanted[4], wanted[5]))
        reached = [
            nearest_point(unit, p, q, least, most) for (unit, least, most), (p, q) in zip(limits, points, strict=True)
        ]
        state.mw, state.mvar = (np.stack(values) for values in zip(*reached, strict=True))

    def _solve(self, state: Anm6State) -> None:
        state.grid.items_kw[3:], state.grid.items_kvar[3:] = -1e3 * state.mw, -1e3 * state.mvar
        state.grid = solve_state(self.grid, state.grid, tolerance=SOLVER_TOLERANCE)
        state.source_mva = power_balance(self.grid, state.grid).source / 1e3

    def _violations(self, grid: GridState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the voltages' depth outside the band and the power above the ratings, sums in pu, [E]."""
        v = node_voltages(self.grid, grid)[self._node]
        magnitude = np.abs(v[1:])
        depth = np.maximum(np.maximum(V_BAND_PU[0] - magnitude, magnitude - V_BAND_PU[1]), 0.0).sum(axis=0)
        near, far = v[BRANCHES.from_bus], v[BRANCHES.to_bus]
        flow = np.abs((near - far) / BRANCHES.z[:, None]) * np.maximum(np.abs(near), np.abs(far))
        return depth, np.maximum(flow - BRANCHES.rating[:, None], 0.0).sum(axis=0)


def nearest_point(
    unit: Unit, p: NDArray[np.float64], q: NDArray[np.float64], least: NDArray[np.float64], most: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the point of a device's range that is nearest to (p, q), MW and Mvar, [E] each.

    The range is least <= p <= most, |q| <= max_q, and beyond corner_p on either side |q| falls linearly to edge_q at
    max_p. It is symmetric in q, so |q| is mapped: the nearest point of every side of the boundary is tried.
    """
    height, slope = np.abs(q), (unit.edge_q - unit.max_q) / (unit.max_p - unit.corner_p)

    def most_q(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return unit.max_q + slope * np.maximum(np.abs(at) - unit.corner_p, 0.0)

    inside = np.clip(p, least, most)
    candidates = [(edge, np.minimum(height, most_q(edge))) for edge in (inside, least, most)]
    for side in (1.0, -1.0):
        # On the slope |q| = max_q + slope (side p - corner_p).
        offset = unit.max_q - slope * unit.corner_p
        along = (side * p + slope * (height - offset)) / (1.0 + slope**2)
        at = np.clip(side * np.maximum(along, unit.corner_p), least, most)
        candidates.append((at, most_q(at)))
    flat = np.clip(np.clip(p, -unit.corner_p, unit.corner_p), least, most)
    candidates.append((flat, np.minimum(height, most_q(flat))))
    distance = np.stack([(at - p) ** 2 + (up - height) ** 2 for at, up in candidates])
    pick = np.argmin(distance, axis=0)
    rows = np.arange(len(p))
    ps, qs = (np.stack(values) for values in zip(*candidates, strict=True))
    return ps[pick, rows], np.sign(q) * qs[pick, rows]
